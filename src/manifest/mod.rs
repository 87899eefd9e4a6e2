//! Manifests that run the proxy beside an application: [`kubernetes`] and [`compose`] fill in the templates of `assets/`
//! for a [`request`] with what [`need`] says, by [`template`].

mod compose;
mod kubernetes;
mod need;
mod request;
mod template;

pub(crate) use compose::compose;
pub(crate) use kubernetes::kubernetes;
pub(crate) use request::Request;
