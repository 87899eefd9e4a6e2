//! What archives and images contain: names, modes and contents, whatever the format.

use std::borrow::Cow;
use std::io::Write;

use crate::release::{Binary, Error, LabelledProgram};

/// A file or directory.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    /// Relative to the root, without a slash at either end.
    pub name: String,
    pub mode: u32,
    pub content: Content<'a>,
}

/// What an entry contains.
#[derive(Debug)]
pub(super) enum Content<'a> {
    Directory,
    Bytes(Cow<'a, [u8]>),
    /// A whole etcdproxy.
    Etcdproxy(&'a Binary),
    /// A program of etcd, unpacked.
    Program(&'a Binary, &'a LabelledProgram),
}

impl<'a> Entry<'a> {
    pub(super) fn file(name: impl Into<String>, content: Content<'a>) -> Self {
        Self { name: name.into(), mode: 0o644, content }
    }

    pub(super) fn executable(name: impl Into<String>, content: Content<'a>) -> Self {
        Self { name: name.into(), mode: 0o755, content }
    }

    pub(super) fn directory(name: impl Into<String>, mode: u32) -> Self {
        Self { name: name.into(), mode, content: Content::Directory }
    }
}

impl Content<'_> {
    pub(super) fn text<'a>(text: impl Into<Cow<'a, str>>) -> Content<'a> {
        Content::Bytes(match text.into() {
            Cow::Borrowed(text) => text.as_bytes().into(),
            Cow::Owned(text) => text.into_bytes().into(),
        })
    }

    /// In bytes.
    pub(super) fn size(&self) -> Result<u64, Error> {
        Ok(match self {
            Self::Directory => 0,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Etcdproxy(binary) => binary.size()?,
            Self::Program(_, program) => program.size,
        })
    }

    pub(super) fn write(&self, out: &mut dyn Write) -> Result<(), Error> {
        match self {
            Self::Directory => Ok(()),
            Self::Bytes(bytes) => out.write_all(bytes).map_err(Error::Sink),
            Self::Etcdproxy(binary) => binary.copy(out),
            Self::Program(binary, program) => binary.unpack(program, out),
        }
    }
}
