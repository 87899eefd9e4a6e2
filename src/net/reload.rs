//! TLS configurations that follow their certificate files.
//!
//! Files are read by a thread that may block, so that a slow or hung mount delays nothing but the renewal itself.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::ClientConfig;
use tokio::sync::watch;

use super::tls::client_config;
use crate::settings::Tls;

/// How often to look for changed files.
const INTERVAL: Duration = Duration::from_secs(1);

/// One configuration for each protocol that TLS can agree on (ALPN).
#[derive(Debug, Clone)]
pub(super) struct Configs {
    pub http1: Arc<ClientConfig>,
    pub http2: Arc<ClientConfig>,
    /// How often certificates have been read.
    pub generation: u32,
}

/// The current configurations, and what they were made from.
pub(super) struct ReloadingTls {
    settings: Tls,
    current: watch::Sender<Configs>,
    stamp: Mutex<Stamp>,
}

/// Of each file: modification time, size, inode.
type Stamp = Vec<Option<(SystemTime, u64, u64)>>;

impl ReloadingTls {
    /// # Errors
    /// When the certificates cannot be used: the setting and the problem, in words.
    pub(super) fn new(settings: &Tls) -> Result<Self, String> {
        let stamp = Mutex::new(stamp(settings));
        Ok(Self { settings: settings.clone(), current: watch::Sender::new(load(settings, 1)?), stamp })
    }

    pub(super) fn current(&self) -> Configs {
        self.current.borrow().clone()
    }

    /// Looks for changed files for ever.
    pub(super) async fn follow(self: Arc<Self>) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            let this = Arc::clone(&self);
            let _ = tokio::task::spawn_blocking(move || this.reload_if_changed()).await;
        }
    }

    fn reload_if_changed(&self) {
        let is_changed = *self.stamp.lock().unwrap_or_else(PoisonError::into_inner) != stamp(&self.settings);
        if is_changed {
            self.reload();
        }
    }

    /// Reads the certificates again. Certificates that cannot be used, as in the middle of a renewal, change nothing.
    pub(super) fn reload(&self) {
        let mut last = self.stamp.lock().unwrap_or_else(PoisonError::into_inner);
        *last = stamp(&self.settings);
        let generation = self.current.borrow().generation + 1;
        let read = self.settings.read_again().map_err(|err| err.to_string());
        match read.and_then(|settings| load(&settings, generation)) {
            Ok(configs) => {
                self.current.send_replace(configs);
                log::info!("the certificates were read again: new connections use them");
            }
            Err(why) => log::warn!("the previous certificates stay in use: {why}"),
        }
    }
}

fn load(settings: &Tls, generation: u32) -> Result<Configs, String> {
    let http2 = client_config(settings)?;
    let mut http1 = http2.clone();
    http1.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Configs { http1: Arc::new(http1), http2: Arc::new(http2), generation })
}

fn stamp(settings: &Tls) -> Stamp {
    let state = |path: &Path| {
        let meta = path.metadata().ok()?;
        Some((meta.modified().ok()?, meta.len(), meta.ino()))
    };
    settings.files().map(state).collect()
}
