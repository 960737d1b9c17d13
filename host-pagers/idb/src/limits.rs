//! Every bound of the pager and its reason.

/// Bytes that are queued or being written, above which an asynchronous call is answered when it is durable: the mirror keeps what
/// they cover, and the browser a copy of what one transaction writes.
pub(crate) const QUEUE_BYTES_MAX: usize = 64 << 20;
