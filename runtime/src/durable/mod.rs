//! Durable instances: a whole unmodified module, kept over restarts.
//!
//! The guest knows nothing of it. Between two calls of its exported functions the host commits what the call changed:
//! dirty pages of linear memory, and mutable globals, tables of functions and the memory's size where they changed; all
//! of it or none.
//!
//! ```text
//!   wasm --[module]: expose, (instrument)--> DurableModule
//!                                                 |
//!   DurableInstance --- Live: Store, [snapshot] globals, tables <--> bytes
//!          |              \-- [space] Space: one Task over [ linear memory | ... | state pages ]
//!          |                        \-- [extents] which objects hold which bytes
//!          +-- a call fails: Live is dropped, the next call restores one from what is committed
//! ```
//!
//! Invariants:
//! - a call's results are handed out only after its changes are durable;
//! - after a call that failed (a trap, an exit, a pager's error) the instance is what it was before the call;
//! - what is committed is opened by the module that wrote it only;
//! - nothing that is read from a pager makes the host panic.

mod error;
mod extents;
mod instance;
mod memory;
mod module;
mod snapshot;
mod space;

pub use error::DurableError;
pub use instance::{Calls, DurableInstance};
pub use module::DurableModule;
