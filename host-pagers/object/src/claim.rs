//! Opening: finding the newest manifest, and taking the epoch by creating the one behind it.
//!
//! ```text
//!   ... 40 41 42          the old writer's; its next commit would be 43
//!             43 44 45    43 is the new writer's claim: the old one's create of 43 fails from now on
//! ```
//!
//! Invariants:
//! - the first and the last manifest of each epoch keep their numbers for ever, so a stale writer, which knows of no
//!   later manifest than its own last one, meets one of the two;
//! - a claimer may have been so slow that the number it takes has been used and removed since: before its first commit
//!   counts it looks whether a newer manifest exists (`commit.rs`).

use std::time::Instant;

use bytes::Bytes;
use vmsync_core::{PageSize, PagerError, PagerErrorKind};
use vmsync_pager_group::{Result, nonce};

use crate::{
    bucket::{Bucket, Failure, Pause},
    layout::manifest::{self, Body, Header, Says},
    limits::{CLAIMS_MAX, MANIFEST_BYTES_MAX},
    tree::Tree,
};

/// Who claims, and for what.
pub(crate) struct Claim {
    pub(crate) create: bool,
    pub(crate) page_size: PageSize,
    pub(crate) writer: u64,
}

impl Bucket {
    /// Reads manifest `number`.
    pub(crate) async fn read_manifest(
        &self,
        number: u64,
        deadline: Instant,
    ) -> Result<Option<(Header, Says)>> {
        let Some(bytes) = self.manifest(number, deadline).await? else {
            return Ok(None);
        };
        let named = |error: PagerError| {
            let message = format!("{}: manifest {number}: {}: restore it", self.name, error.message);
            PagerError::new(error.kind, message)
        };
        let (header, says) = manifest::decode(&bytes).map_err(named)?;
        if header.number != number {
            return Err(named(PagerError::new(
                PagerErrorKind::Damaged,
                "it has another number inside",
            )));
        }
        Ok(Some((header, says)))
    }

    /// The contents as of manifest `number`, and its header; `None` where it has been superseded meanwhile.
    pub(crate) async fn contents(&self, number: u64, deadline: Instant) -> Result<Option<(Header, Body)>> {
        let mut newest = None;
        for number in (0..=number).rev() {
            let Some((header, says)) = self.read_manifest(number, deadline).await? else {
                break;
            };
            let newest = *newest.get_or_insert(header);
            match says {
                Says::Contents(body) => return Ok(Some((newest, body))),
                Says::Borrows => {}
                Says::Retired => break,
            }
        }
        Ok(None)
    }

    /// The newest contents, for reading.
    pub(crate) async fn newest_contents(&self, page_size: PageSize, deadline: Instant) -> Result<Tree> {
        loop {
            let Some(number) = self.newest(deadline).await? else {
                return Err(self.no_store());
            };
            if let Some((header, body)) = self.contents(number, deadline).await? {
                self.check_page_size(header.page_size, page_size)?;
                return Ok(Tree::new(header, body));
            }
            if Instant::now() >= deadline {
                return Err(self.unreachable("manifests go faster than they can be read"));
            }
        }
    }

    /// Takes the epoch.
    pub(crate) async fn claim(&self, claim: &Claim, deadline: Instant) -> Result<Tree> {
        for _ in 0..CLAIMS_MAX {
            let (number, clean, body) = match self.newest(deadline).await? {
                None if !claim.create => return Err(self.no_store()),
                None => {
                    let mut body = Body::default();
                    body.contents.object_next = 1;
                    (1, 1, body)
                }
                Some(number) => {
                    let Some((header, body)) = self.contents(number, deadline).await? else {
                        continue;
                    };
                    self.check_page_size(header.page_size, claim.page_size)?;
                    (number + 1, header.clean, body)
                }
            };
            let header = claim.header(number, clean);
            if self
                .create_own(&header, &Says::Contents(body.clone()), deadline)
                .await?
            {
                return Ok(Tree::new(header, body));
            }
            if let Some(tree) = self.claim_behind(claim, number + 1, deadline).await? {
                return Ok(tree);
            }
        }
        Err(self.unreachable("other writers keep taking the store"))
    }

    /// Takes the epoch while another writer commits all the time: one that read its manifests would always be late,
    /// so this one first gets ahead and then reads what was the newest. `None` where there is no such.
    async fn claim_behind(&self, claim: &Claim, first: u64, deadline: Instant) -> Result<Option<Tree>> {
        for number in first.. {
            let header = claim.header(number, 1);
            if !self.create_own(&header, &Says::Borrows, deadline).await? {
                if Instant::now() >= deadline {
                    break;
                }
                continue;
            }
            let Some((before, body)) = self.contents(number - 1, deadline).await? else {
                break;
            };
            self.check_page_size(before.page_size, claim.page_size)?;
            let header = Header {
                clean: before.clean,
                ..header
            };
            return Ok(Some(Tree::new(header, body)));
        }
        Ok(None)
    }

    /// Creates a manifest, and finds out whether it did where the answer is lost.
    async fn create_own(&self, header: &Header, says: &Says, deadline: Instant) -> Result<bool> {
        let bytes: Bytes = manifest::encode(header, says).into();
        if bytes.len() as u64 > MANIFEST_BYTES_MAX {
            let message = format!(
                "{}: a manifest of {} bytes: remove objects",
                self.name,
                bytes.len()
            );
            return Err(PagerError::new(PagerErrorKind::NoSpace, message));
        }
        let mut pause = Pause::new();
        loop {
            match self.create(header.number, bytes.clone()).await {
                Ok(true) => return Ok(true),
                Ok(false) => {
                    let found = self.read_manifest(header.number, deadline).await?;
                    return Ok(found.is_some_and(|(found, _)| found.attempt == header.attempt));
                }
                Err(Failure::Refused(error)) => return Err(error),
                Err(Failure::Unknown(message)) => {
                    if !pause.wait(deadline).await {
                        return Err(self.unreachable(&message));
                    }
                }
            }
        }
    }

    fn check_page_size(&self, found: PageSize, asked: PageSize) -> Result<()> {
        if found == asked {
            return Ok(());
        }
        let (name, found, asked) = (&self.name, found.bytes(), asked.bytes());
        let message = format!("{name} has pages of {found} bytes, not {asked}");
        Err(PagerError::new(PagerErrorKind::Invalid, message))
    }

    fn no_store(&self) -> PagerError {
        let message = format!("{}: no store there: ask for it to be created", self.name);
        PagerError::new(PagerErrorKind::NotFound, message)
    }
}

impl Claim {
    fn header(&self, number: u64, clean: u64) -> Header {
        Header {
            number,
            epoch: number,
            writer: self.writer,
            attempt: nonce(),
            clean,
            page_size: self.page_size,
        }
    }
}
