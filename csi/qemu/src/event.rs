//! What a monitor tells of its own accord.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::broadcast;

/// An event (QMP specification, "Asynchronous events"): `JOB_STATUS_CHANGE`, `BLOCK_EXPORT_DELETED`, `DEVICE_DELETED`, …
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its name.
    pub name: String,
    /// Its data; null where it has none.
    pub data: Value,
    /// When it happened by the monitor's clock, since 1970.
    pub timestamp: Duration,
}

#[derive(Deserialize)]
struct Wire {
    event: String,
    #[serde(default)]
    data: Value,
    timestamp: Timestamp,
}

#[derive(Deserialize)]
struct Timestamp {
    seconds: i64,
    microseconds: i64,
}

impl Event {
    pub(crate) fn parse(text: &str) -> Result<Self, serde_json::Error> {
        let wire: Wire = serde_json::from_str(text)?;
        // Both are -1 where the host's clock failed.
        let seconds = u64::try_from(wire.timestamp.seconds).unwrap_or_default();
        let micros = u64::try_from(wire.timestamp.microseconds).unwrap_or_default();
        Ok(Event {
            name: wire.event,
            data: wire.data,
            timestamp: Duration::from_secs(seconds) + Duration::from_micros(micros),
        })
    }

    /// The data, if the event is called `name` and its data is a `T`.
    #[must_use]
    pub fn data_of<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        (self.name == name).then(|| T::deserialize(&self.data).ok())?
    }

    /// Whether it is called `name` and the member `key` of its data is the string `value`.
    #[must_use]
    pub fn is(&self, name: &str, key: &str, value: &str) -> bool {
        self.name == name && self.data.get(key).and_then(Value::as_str) == Some(value)
    }
}

/// The events of a connection from the moment of the subscription on.
#[derive(Debug)]
pub struct Events(pub(crate) broadcast::Receiver<Event>);

/// No more events, or some were missed: read the state again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EventsLost {
    /// The connection has ended.
    #[error("the monitor's connection has ended")]
    Ended,
    /// The subscriber was too slow: the oldest were dropped. Later ones still come.
    #[error("{0} events of the monitor were missed")]
    Missed(u64),
}

impl Events {
    /// The next event. Cancel safe.
    ///
    /// # Errors
    /// See [`EventsLost`].
    pub async fn next(&mut self) -> Result<Event, EventsLost> {
        self.0.recv().await.map_err(|error| match error {
            broadcast::error::RecvError::Closed => EventsLost::Ended,
            broadcast::error::RecvError::Lagged(missed) => EventsLost::Missed(missed),
        })
    }

    /// The next event that `wanted` accepts.
    ///
    /// # Errors
    /// See [`EventsLost`].
    pub async fn wait_for(
        &mut self,
        wanted: impl Fn(&Event) -> bool + Send,
    ) -> Result<Event, EventsLost> {
        loop {
            let event = self.next().await?;
            if wanted(&event) {
                return Ok(event);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_with_and_without_data() {
        let event = Event::parse(
            r#"{"timestamp":{"seconds":3,"microseconds":7},"event":"BLOCK_EXPORT_DELETED","data":{"id":"e"}}"#,
        )
        .unwrap();
        assert!(event.is("BLOCK_EXPORT_DELETED", "id", "e"));
        assert!(!event.is("BLOCK_EXPORT_DELETED", "id", "f"));
        assert_eq!(event.timestamp, Duration::new(3, 7_000));
        let event =
            Event::parse(r#"{"event":"SHUTDOWN","timestamp":{"seconds":-1,"microseconds":-1}}"#)
                .unwrap();
        assert_eq!((event.data, event.timestamp), (Value::Null, Duration::ZERO));
    }
}
