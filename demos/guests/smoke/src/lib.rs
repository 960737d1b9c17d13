//! One export for each call of the SDK.
