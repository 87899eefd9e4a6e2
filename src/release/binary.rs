//! A whole etcdproxy, whose contents can be taken out without running it: this one, or one for another architecture.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write};
use std::path::{Path, PathBuf};

use etcdproxy_payload::{Frame, Label, LabelError, Labelled, LabelledProgram, Unpacker};

use super::contents::own_label;
use super::documents::Document;
use super::error::Error;
use super::{launcher, payload};
use crate::os::env::open_own_exe;

/// A whole etcdproxy.
#[derive(Debug)]
pub(crate) struct Binary {
    /// What is inside.
    pub label: Label,
    /// The path of its file, for messages.
    path: PathBuf,
    file: File,
    payload: Cow<'static, [u8]>,
    /// Where the payload begins in the file, if that is known.
    offset: Option<u64>,
}

impl Binary {
    /// This binary. `path` is its path, for messages.
    ///
    /// # Errors
    /// If it is a launcher, or if its file cannot be read.
    pub(crate) fn own(path: &Path) -> Result<Self, Error> {
        let label = own_label().ok().filter(|_| payload::has_payload());
        Ok(Self {
            label: label.ok_or(Error::NoDocument { what: "etcd" })?,
            path: path.to_owned(),
            file: open_own_exe().map_err(|cause| Error::CannotRead { path: path.to_owned(), cause })?,
            payload: payload::payload().into(),
            offset: launcher::payload_in_file().map(|range| range.start),
        })
    }

    /// The etcdproxy in a file. It is read, and not run.
    ///
    /// # Errors
    /// If the file cannot be read, or if it is not a whole etcdproxy.
    pub(crate) fn read(path: &Path) -> Result<Self, LabelError> {
        let Labelled { label, payload, offset } = Labelled::read(path)?;
        Ok(Self {
            label,
            path: path.to_owned(),
            file: File::open(path)?,
            payload: payload.into(),
            offset: Some(offset),
        })
    }

    /// The size of its file in bytes.
    pub(crate) fn size(&self) -> Result<u64, Error> {
        self.file.metadata().map(|meta| meta.len()).map_err(|cause| self.cannot_read(cause))
    }

    /// Writes the whole file to `out`.
    ///
    /// # Errors
    /// [`Error::CannotRead`], or [`Error::Sink`] with the error of `out`.
    pub(crate) fn copy(&self, out: &mut dyn Write) -> Result<(), Error> {
        let mut file = &self.file;
        file.rewind().map_err(|cause| self.cannot_read(cause))?;
        let mut buffer = vec![0; 128 * 1024];
        loop {
            match file.read(&mut buffer).map_err(|cause| self.cannot_read(cause))? {
                0 => return Ok(()),
                read => out.write_all(&buffer[..read]).map_err(Error::Sink)?,
            }
        }
    }

    fn cannot_read(&self, cause: io::Error) -> Error {
        Error::CannotRead { path: self.path.clone(), cause }
    }

    /// Unpacks a program, checks it, and writes it to `out` piece by piece.
    ///
    /// Peak memory is one frame and, for a program after the first, all programs before it.
    ///
    /// # Errors
    /// [`Error::DamagedIn`], or [`Error::Sink`] with the error of `out`.
    pub(crate) fn unpack(&self, program: &LabelledProgram, out: &mut dyn Write) -> Result<(), Error> {
        let mut prefix = Vec::new();
        for earlier in self.label.programs.iter().take_while(|earlier| earlier.name != program.name) {
            let mut bytes = Vec::new();
            self.write_frames(earlier, &prefix, &mut bytes)?;
            prefix.append(&mut bytes);
        }
        self.write_frames(program, &prefix, out)
    }

    fn write_frames(&self, program: &LabelledProgram, prefix: &[u8], out: &mut dyn Write) -> Result<(), Error> {
        let mut unpacker = Unpacker::new();
        program.frames.iter().try_for_each(|frame| {
            let plain = self.unpack_frame(&mut unpacker, frame, prefix, &program.name)?;
            out.write_all(plain).map_err(Error::Sink)
        })
    }

    /// Unpacks a document and checks its hash.
    ///
    /// # Errors
    /// [`Error::DamagedIn`].
    pub(crate) fn document(&self, document: Document) -> Result<Vec<u8>, Error> {
        let texts = &self.label.documents;
        let (name, part) = document.in_texts(texts);
        let mut unpacker = Unpacker::new();
        let all = self.unpack_frame(&mut unpacker, &texts.frame, &[], name)?;
        let part = all.get(part).ok_or_else(|| self.damaged(name, "it ends too early"))?;
        Ok(part.to_owned())
    }

    fn unpack_frame<'a>(
        &self,
        unpacker: &'a mut Unpacker,
        frame: &Frame,
        prefix: &[u8],
        name: &str,
    ) -> Result<&'a [u8], Error> {
        let packed = self.payload.get(frame.packed.clone()).ok_or_else(|| self.damaged(name, "it ends too early"))?;
        unpacker.unpack(frame, packed, prefix).map_err(|detail| self.damaged(name, detail))
    }

    fn damaged(&self, name: &str, detail: &'static str) -> Error {
        Error::DamagedIn { path: self.path.clone(), name: name.to_owned(), detail }
    }

    /// The small launcher that this etcdproxy would write.
    ///
    /// # Errors
    /// If the file cannot be read or is not laid out as expected.
    pub(crate) fn launcher(&self) -> Result<Vec<u8>, Error> {
        let failed = |detail: String| Error::NoLauncher { binary: self.path.display().to_string(), detail };
        let start = self.offset.ok_or_else(|| failed("its payload is not where it should be".to_owned()))?;
        launcher::cut(&self.file, &(start..start + self.payload.len() as u64)).map_err(failed)
    }
}
