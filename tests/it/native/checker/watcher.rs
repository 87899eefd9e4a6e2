//! One stream of watches, and what was said and heard on it.

use std::sync::{Arc, Mutex};

use prost::Message as _;
use prost::bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::World;
use super::messages::{Cancel, Create, Progress, WatchRequest, WatchResponse};
use super::moments::Moment;
use super::truth::call;
use crate::grpc::{Body, Server};
use crate::native::WATCH;

/// A stream of watches.
pub(super) struct Watching {
    pub(super) name: String,
    /// What the user may read.
    pub(super) only: Option<&'static str>,
    /// It has a token of the client's own.
    pub(super) has_token: bool,
    moments: Arc<Mutex<Vec<Moment>>>,
    body: Body,
    is_half_closed: bool,
    pauses: watch::Sender<bool>,
    reader: JoinHandle<()>,
    /// The client has ended it.
    is_given_up: bool,
    creates: usize,
}

impl Watching {
    /// Opens a stream, with its first watch, as the user of the token.
    pub(super) async fn open(
        world: &Arc<World>,
        server: &Server,
        token: Option<&str>,
        name: String,
        create: Create,
    ) -> Result<Self, h2::Error> {
        let moments =
            Arc::new(Mutex::new(vec![Moment::Create { create: create.clone(), known: world.truth.position() }]));
        let request = WatchRequest { create: Some(create), ..WatchRequest::default() };
        let mut stream = server.begin(&call(WATCH, &request.encode_to_vec(), token), false).await?;
        let body = stream.take_body();
        let (pauses, mut state) = watch::channel(false);
        let (world, heard) = (Arc::clone(world), Arc::clone(&moments));
        let only = if token.is_some() { None } else { world.only() };
        let reader = tokio::spawn(async move {
            loop {
                if state.wait_for(|is_paused| !is_paused).await.is_err() {
                    return;
                }
                let message = tokio::select! {
                    message = stream.next() => message,
                    _ = state.changed() => continue,
                };
                let Some(message) = message else { break };
                let compacted = world.compacted();
                let moment = match WatchResponse::decode(Bytes::from(message)) {
                    Ok(response) => Moment::Heard { response, compacted },
                    Err(err) => Moment::Ended(format!("not a WatchResponse: {err}")),
                };
                heard.lock().unwrap().push(moment);
            }
            let end = stream.so_far();
            let how = format!("status {:?} {:?} {:?}", end.status, end.message, end.broken);
            heard.lock().unwrap().push(Moment::Ended(how));
        });
        Ok(Self {
            name,
            only,
            has_token: token.is_some(),
            moments,
            body,
            is_half_closed: false,
            pauses,
            reader,
            is_given_up: false,
            creates: 1,
        })
    }

    fn say(&mut self, moment: Moment, request: &WatchRequest) {
        self.moments.lock().unwrap().push(moment);
        // The reader notices when the stream has ended.
        let _ = self.body.say(&request.encode_to_vec());
    }

    /// Returns the number of the request.
    pub(super) fn create(&mut self, create: Create, known: i64) -> usize {
        let request = WatchRequest { create: Some(create.clone()), ..WatchRequest::default() };
        self.say(Moment::Create { create, known }, &request);
        self.creates += 1;
        self.creates - 1
    }

    pub(super) fn cancel(&mut self, watch_id: i64) {
        let request = WatchRequest { cancel: Some(Cancel { watch_id }), ..WatchRequest::default() };
        self.say(Moment::Cancel(watch_id), &request);
    }

    pub(super) fn ask_progress(&mut self) {
        self.say(Moment::Progress, &WatchRequest { progress: Some(Progress {}), ..WatchRequest::default() });
    }

    pub(super) fn half_close(&mut self) {
        self.is_half_closed = true;
        self.moments.lock().unwrap().push(Moment::HalfClose);
        let _ = self.body.end();
    }

    /// Whether it can take more requests.
    pub(super) fn is_open(&self) -> bool {
        !self.is_half_closed && !self.is_given_up && !self.reader.is_finished()
    }

    /// The client does not want to hear more.
    pub(super) fn give_up(&mut self) {
        self.moments.lock().unwrap().push(Moment::GiveUp);
        self.body.cancel();
        self.reader.abort();
        self.is_given_up = true;
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.is_given_up
    }

    /// Stops reading, or goes on.
    pub(super) fn pause(&self, pause: bool) {
        let _ = self.pauses.send(pause);
    }

    pub(super) fn must_see(&self, create: usize, revision: i64) {
        self.moments.lock().unwrap().push(Moment::MustSee { create, revision });
    }

    pub(super) fn with<T>(&self, look: impl FnOnce(&[Moment]) -> T) -> T {
        look(&self.moments.lock().unwrap())
    }

    /// The ids of watches that were created, and that nobody has canceled yet.
    pub(super) fn ids(&self) -> Vec<i64> {
        let mut ids = Vec::new();
        self.with(|moments| {
            for moment in moments {
                match moment {
                    Moment::Heard { response, .. } if response.canceled => ids.retain(|id| *id != response.watch_id),
                    Moment::Heard { response, .. } if response.created => ids.push(response.watch_id),
                    Moment::Cancel(canceled) => ids.retain(|id| id != canceled),
                    _ => {}
                }
            }
        });
        ids
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.reader.abort();
    }
}
