//! The classic buildpack of Cloud Foundry, a zip.

use std::fs::File;
use std::io;

use anyhow::Result;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::entry::Entry;

/// Writes the files of the buildpack as a zip.
pub(super) fn write(entries: &[Entry<'_>], file: &mut File) -> Result<()> {
    let mut zip = ZipWriter::new(file);
    for entry in entries {
        // Stored: nearly all of it is compressed already.
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(DateTime::default())
            .unix_permissions(entry.mode);
        zip.start_file(&*entry.name, options).map_err(io::Error::from)?;
        entry.content.write(&mut zip)?;
    }
    zip.finish().map_err(io::Error::from)?;
    Ok(())
}
