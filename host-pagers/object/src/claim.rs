//! Opening: finding the newest manifest, and taking the epoch by creating one behind it.
//!
//! ```text
//!   ... 40 41 42                       the old writer's; its next commit would be 43
//!             43 44 45                 43 is the new writer's claim: the old one's create of 43 fails from now on
//!
//!   ... 40 41 42 43 44        50       beside a writer that never pauses: a claim ahead of it, at 50, then 49, 48, …
//!                     45 .. 49         down to the old writer's last; its create of 45 fails from now on
//! ```
//!
//! Invariants:
//! - the first and the last manifest of each epoch keep their numbers for ever, so a stale writer, which knows of no
//!   later manifest than its own last one, meets one of the two;
//! - a claim counts when every number below it is taken. Only a claim that borrows may have a gap below it;
//! - a claimer may have been so slow that the number it takes has been used and removed since: a claim is one when
//!   nothing newer is there after it was made. Where a later claim is, that one has the store.

use std::time::Instant;

use bytes::Bytes;
use vmsync_core::{PageSize, PagerError, PagerErrorKind};
use vmsync_pager_group::{Result, nonce};

use crate::{
    bucket::{Bucket, Failure, Pause},
    layout::manifest::{self, Body, Header, Says},
    limits::{CLAIM_AHEAD_FIRST, CLAIM_AHEAD_MAX, MANIFEST_BYTES_MAX},
    tree::Tree,
};

/// Who claims, and for what.
pub(crate) struct Claim {
    pub(crate) create: bool,
    pub(crate) page_size: PageSize,
    pub(crate) writer: u64,
}

/// What became of a create.
enum Created {
    Own,
    /// The number is another attempt's.
    Other(Header, Says),
    /// The number was another attempt's, and is superseded.
    Removed,
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

    /// The newest contents, for reading.
    pub(crate) async fn newest_contents(&self, page_size: PageSize, deadline: Instant) -> Result<Tree> {
        loop {
            let Some(newest) = self.newest(deadline).await? else {
                return Err(self.no_store());
            };
            let found = match self.read_manifest(newest, deadline).await? {
                Some((header, Says::Contents(body))) => Some((header, body)),
                Some((_, Says::Borrows)) => self.contents_below(newest, deadline).await?,
                Some((_, Says::Retired)) | None => None,
            };
            if let Some((header, body)) = found {
                self.check_page_size(header.page_size, page_size)?;
                return Ok(Tree::new(header, body));
            }
            if Instant::now() >= deadline {
                return Err(self.unreachable("manifests go faster than they can be read"));
            }
        }
    }

    /// What claims up to `newest` borrow, also while there is a gap below one; `None`: it has been superseded.
    async fn contents_below(&self, newest: u64, deadline: Instant) -> Result<Option<(Header, Body)>> {
        let numbers = self.manifests(deadline).await?;
        for number in numbers.into_keys().rev().filter(|number| *number < newest) {
            match self.read_manifest(number, deadline).await? {
                Some((header, Says::Contents(body))) => return Ok(Some((header, body))),
                Some((_, Says::Borrows)) => {}
                Some((_, Says::Retired)) | None => break,
            }
        }
        Ok(None)
    }

    /// Takes the epoch: from here on the writer before can commit nothing.
    pub(crate) async fn claim(&self, claim: &Claim, deadline: Instant) -> Result<Tree> {
        let mut ahead = 1;
        loop {
            let newest = self.newest(deadline).await?;
            let tree = match newest {
                None if !claim.create => return Err(self.no_store()),
                None => {
                    let mut body = Body::default();
                    body.contents.object_next = 1;
                    self.claim_behind(claim, 0, 1, body, deadline).await?
                }
                Some(newest) if ahead > 1 => self.claim_ahead(claim, newest, ahead, deadline).await?,
                Some(newest) => match self.read_manifest(newest, deadline).await? {
                    Some((header, Says::Contents(body))) => {
                        self.check_page_size(header.page_size, claim.page_size)?;
                        self.claim_behind(claim, newest, header.clean, body, deadline)
                            .await?
                    }
                    Some((_, Says::Borrows)) => self.claim_ahead(claim, newest, ahead, deadline).await?,
                    Some((_, Says::Retired)) | None => None,
                },
            };
            if let Some(tree) = tree
                && self.is_real(&tree.header, deadline).await?
            {
                return Ok(tree);
            }
            if Instant::now() >= deadline {
                return Err(self.unreachable("other writers keep taking the store"));
            }
            ahead = (ahead * 2).clamp(CLAIM_AHEAD_FIRST, CLAIM_AHEAD_MAX);
        }
    }

    /// Whether a claim that was made is the newest manifest; false where its number had been used before.
    async fn is_real(&self, claim: &Header, deadline: Instant) -> Result<bool> {
        let Some(newest) = self.newest(deadline).await? else {
            return Ok(false);
        };
        if newest == claim.number {
            return Ok(true);
        }
        match self.read_manifest(newest, deadline).await? {
            // A later claim: if this one began again, and that one too, they would keep each other from ever ending.
            Some((later, _)) if later.epoch > claim.epoch => Err(self.overtaken(newest)),
            _ => Ok(false),
        }
    }

    /// Takes the epoch behind a manifest that has been read; `None`: somebody else has made that one.
    async fn claim_behind(
        &self,
        claim: &Claim,
        newest: u64,
        clean: u64,
        body: Body,
        deadline: Instant,
    ) -> Result<Option<Tree>> {
        let header = claim.header(newest + 1, clean);
        let created = self
            .create_own(&header, &Says::Contents(body.clone()), deadline)
            .await?;
        Ok(matches!(created, Created::Own).then(|| Tree::new(header, body)))
    }

    /// Takes the epoch beside a writer that commits meanwhile: creates a claim `ahead` of it and takes the numbers
    /// between, from the claim down to that writer's last manifest. `None`: the writer was faster, or `newest` is
    /// long superseded.
    async fn claim_ahead(
        &self,
        claim: &Claim,
        newest: u64,
        ahead: u64,
        deadline: Instant,
    ) -> Result<Option<Tree>> {
        let header = claim.header(newest + ahead, 1);
        let created = self.create_own(&header, &Says::Borrows, deadline).await?;
        if !matches!(created, Created::Own) {
            return Ok(None);
        }
        for number in (1..header.number).rev() {
            let below = claim.header(number, 1);
            match self.create_own(&below, &Says::Borrows, deadline).await? {
                // It was there, so it has been removed, and much that is newer exists.
                Created::Own if number == newest => break,
                Created::Own | Created::Other(_, Says::Borrows) => {}
                Created::Other(before, Says::Contents(body)) => {
                    self.check_page_size(before.page_size, claim.page_size)?;
                    let clean = before.clean;
                    return Ok(Some(Tree::new(Header { clean, ..header }, body)));
                }
                Created::Other(_, Says::Retired) | Created::Removed => break,
            }
        }
        Ok(None)
    }

    /// Creates a manifest, and finds out whether it did where the answer is lost.
    async fn create_own(&self, header: &Header, says: &Says, deadline: Instant) -> Result<Created> {
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
                Ok(true) => return Ok(Created::Own),
                Ok(false) => {
                    return Ok(match self.read_manifest(header.number, deadline).await? {
                        Some((found, _)) if found.attempt == header.attempt => {
                            self.require_synced()?;
                            Created::Own
                        }
                        Some((found, says)) => Created::Other(found, says),
                        None => Created::Removed,
                    });
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

    fn overtaken(&self, number: u64) -> PagerError {
        let message = format!(
            "{}: another host has opened the store at the same time, and later (manifest {number}): go on there, or open \
             it again to take it back",
            self.name
        );
        PagerError::new(PagerErrorKind::Gone, message)
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
