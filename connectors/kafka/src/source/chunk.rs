//! Records on their way from librdkafka to the decoder, copied into one buffer.

use std::sync::Arc;

use rdkafka::bindings;
use serde_json::json;

use super::messages::Message;
use super::partition::Partition;

/// What is made of a record beside its value, so that nothing is copied that no one wants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) key: bool,
    pub(super) headers: bool,
}

/// Records of one consumer, in the order in which it got them.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    /// The partitions that the records are of, each with the offset after its last one here.
    pub(super) partitions: Vec<(Arc<Partition>, i64)>,
    records: Vec<Head>,
    /// For each record its value, its key, its headers (as JSON).
    bytes: Vec<u8>,
    /// The consumer is at its end: nothing comes after this chunk.
    pub(super) last: bool,
}

/// What a record has of a fixed size; there are thousands of them, so it is small.
#[derive(Clone, Copy, Debug)]
struct Head {
    partition: usize,
    offset: i64,
    /// [`NO_TIME`] is none.
    millis: i64,
    value: Length,
    key: Length,
    headers: Length,
}

/// No record has this time: no column could hold it.
const NO_TIME: i64 = i64::MIN;

/// The length of a part of a record, which may be null.
#[derive(Clone, Copy, Debug)]
struct Length(usize);

impl Length {
    fn of(part: Option<&[u8]>) -> Length {
        Length(part.map_or(usize::MAX, <[u8]>::len))
    }

    fn get(self) -> Option<usize> {
        (self.0 != usize::MAX).then_some(self.0)
    }
}

/// One record in a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    /// Index in [`Chunk::partitions`].
    pub(super) partition: usize,
    pub(super) offset: i64,
    /// Milliseconds since the epoch.
    pub(super) millis: Option<i64>,
    pub(super) value: Option<&'a [u8]>,
    pub(super) key: Option<&'a [u8]>,
    /// JSON; see [`headers_to_json`].
    pub(super) headers: Option<&'a [u8]>,
}

impl Chunk {
    /// An empty one, with room for as much as another one had.
    pub(super) fn like(other: &Chunk) -> Chunk {
        Chunk {
            partitions: Vec::new(),
            records: Vec::with_capacity(other.records.len()),
            bytes: Vec::with_capacity(other.bytes.len()),
            last: false,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Copy a message. `index` is that of its partition in `partitions`.
    pub(super) fn push(&mut self, index: usize, message: &Message, wanted: Wanted) {
        let headers = if wanted.headers { headers_of(message).map(|headers| headers_to_json(&headers)) } else { None };
        self.push_record(&Record {
            partition: index,
            offset: message.offset(),
            millis: message.millis(),
            value: message.value(),
            key: message.key().filter(|_| wanted.key),
            headers: headers.as_deref().map(str::as_bytes),
        });
    }

    fn push_record(&mut self, record: &Record<'_>) {
        let mut copy = |part: Option<&[u8]>| {
            self.bytes.extend_from_slice(part.unwrap_or_default());
            Length::of(part)
        };
        let (value, key, headers) = (copy(record.value), copy(record.key), copy(record.headers));
        let &Record { partition, offset, millis, .. } = record;
        let millis = millis.unwrap_or(NO_TIME);
        self.records.push(Head { partition, offset, millis, value, key, headers });
        if let Some((_, next)) = self.partitions.get_mut(partition) {
            *next = offset.saturating_add(1);
        }
    }

    /// The records, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        let mut rest = self.bytes.as_slice();
        self.records.iter().map(move |head| {
            let mut take = |length: Length| {
                let (part, others) = rest.split_at_checked(length.get()?)?;
                rest = others;
                Some(part)
            };
            let (value, key, headers) = (take(head.value), take(head.key), take(head.headers));
            let &Head { partition, offset, millis, .. } = head;
            let millis = (millis != NO_TIME).then_some(millis);
            Record { partition, offset, millis, value, key, headers }
        })
    }
}

/// A name and a value, which may be missing.
type Header<'a> = (&'a [u8], Option<&'a [u8]>);

/// The headers of a message; none if it has none. rdkafka's own accessor panics if a name is not UTF-8, which any
/// producer can write.
fn headers_of(message: &Message) -> Option<Vec<Header<'_>>> {
    let mut list = std::ptr::null_mut();
    // SAFETY: the message is alive, and `list` is a place for a pointer. The list belongs to the message.
    let found = unsafe { bindings::rd_kafka_message_headers(message.raw(), &mut list) };
    if found != bindings::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR || list.is_null() {
        return None;
    }
    let mut headers = Vec::new();
    loop {
        let (mut name, mut value, mut size) = (std::ptr::null(), std::ptr::null(), 0);
        // SAFETY: `list` is alive as long as the message; the others are places for what is found.
        let found = unsafe { bindings::rd_kafka_header_get_all(list, headers.len(), &mut name, &mut value, &mut size) };
        if found != bindings::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR || name.is_null() {
            break;
        }
        // SAFETY: a name is a C string, a value that is not null has `size` bytes, and both live in the message.
        let header = unsafe {
            let name = std::ffi::CStr::from_ptr(name).to_bytes();
            (name, (!value.is_null()).then(|| std::slice::from_raw_parts(value.cast::<u8>(), size)))
        };
        headers.push(header);
    }
    (!headers.is_empty()).then_some(headers)
}

/// `[{"key": "k", "value": "v"}, …]`, in order, none left out; a value that is not UTF-8 is `base64`.
pub(crate) fn headers_to_json(headers: &[Header<'_>]) -> String {
    let objects = headers.iter().map(|(name, value)| {
        let key = String::from_utf8_lossy(name);
        match value.map(|value| (value, str::from_utf8(value))) {
            None => json!({ "key": key, "value": null }),
            Some((_, Ok(text))) => json!({ "key": key, "value": text }),
            Some((bytes, Err(_))) => json!({ "key": key, "base64": acequia_connector_api::base64(bytes) }),
        }
    });
    serde_json::Value::from_iter(objects).to_string()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::source) fn chunk(partitions: &[&Arc<Partition>], records: &[Record<'_>]) -> Chunk {
        let partitions = partitions.iter().map(|partition| (Arc::clone(partition), 0)).collect();
        let mut chunk = Chunk { partitions, ..Chunk::default() };
        for record in records {
            chunk.push_record(record);
        }
        chunk
    }

    #[test]
    fn records_come_out_as_they_went_in() {
        let partition = Arc::new(Partition::new("t", 3));
        let record = Record { partition: 0, offset: 5, millis: Some(7), value: Some(b"abc"), key: None, headers: None };
        let records = [
            record,
            Record { offset: 6, value: None, key: Some(b"k"), millis: None, ..record },
            Record { offset: 9, value: Some(b""), key: Some(b""), headers: Some(b"[]"), ..record },
        ];
        let chunk = chunk(&[&partition], &records);
        assert_eq!(chunk.iter().collect::<Vec<_>>(), records);
        assert_eq!((chunk.len(), chunk.bytes()), (3, 6));
        assert_eq!(chunk.partitions.first().unwrap().1, 10);
    }

    #[test]
    fn no_header_is_lost() {
        let headers: [Header<'_>; 4] =
            [(b"a", Some(b"1")), (b"a", Some(b"\xff\x00")), (b"b", None), (b"\xe4", Some(b""))];
        assert_eq!(
            headers_to_json(&headers),
            r#"[{"key":"a","value":"1"},{"key":"a","base64":"/wA="},{"key":"b","value":null},{"key":"�","value":""}]"#
        );
    }
}
