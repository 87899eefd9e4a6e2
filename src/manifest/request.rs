//! What to print.

use crate::settings::Elsewhere;

/// What to print.
#[derive(Debug)]
pub(crate) struct Request {
    pub elsewhere: Elsewhere,
    /// The proxy's image.
    pub image: String,
    /// The application's image.
    pub app_image: String,
    /// The name of the whole; a label of DNS (RFC 1123).
    pub name: String,
    /// The name of a Secret that the user has, or wants.
    pub secret: Option<String>,
    /// Print the certificates, the key and the password, too.
    pub with_secret: bool,
}
