//! [`Parameters`]: a batch as the values of the statement that commits it.
//!
//! Invariants:
//! - lists of one table are equally long;
//! - the sum depends on the place, so a page that moved is found out as well as one that changed.

use std::{error::Error, sync::Arc};

use bytes::BytesMut;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use twox_hash::XxHash3_64;
use vmsync_pager_group::{Batch, Place};

/// See the head of this file.
#[derive(Default)]
pub(crate) struct Parameters {
    calls: i64,
    object_next: i64,
    objects: Objects,
    pages: Pages,
    zeroes: (Vec<i64>, Vec<i64>),
    removed: Vec<i64>,
    /// Bytes of its pages.
    pub(crate) bytes: usize,
}

#[derive(Default)]
struct Objects {
    ids: Vec<i64>,
    names: Vec<String>,
    sizes: Vec<i64>,
    versions: Vec<i64>,
    addresses: Vec<Option<i64>>,
}

#[derive(Default)]
struct Pages {
    objects: Vec<i64>,
    pages: Vec<i64>,
    bytes: Vec<Bytes>,
    sums: Vec<i64>,
}

/// A page's bytes, shared with whoever else holds them.
#[derive(Debug)]
struct Bytes(Arc<[u8]>);

impl ToSql for Bytes {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        (&*self.0).to_sql(ty, out)
    }

    fn accepts(ty: &Type) -> bool {
        <&[u8] as ToSql>::accepts(ty)
    }

    to_sql_checked!();
}

impl Parameters {
    pub(crate) fn new(batch: &Batch) -> Self {
        let mut parameters = Self {
            calls: batch.calls as i64,
            object_next: batch.object_next as i64,
            removed: batch.removed.iter().map(|(_, id)| *id as i64).collect(),
            ..Self::default()
        };
        for (name, entry) in &batch.objects {
            let objects = &mut parameters.objects;
            objects.ids.push(entry.id as i64);
            objects.names.push(name.to_string());
            objects.sizes.push(entry.size as i64);
            objects.versions.push(entry.version as i64);
            objects
                .addresses
                .push(entry.address.map(|address| address as i64));
        }
        for (place, bytes) in &batch.pages {
            let (object, page) = (place.0 as i64, place.1 as i64);
            if bytes.iter().all(|byte| *byte == 0) {
                parameters.zeroes.0.push(object);
                parameters.zeroes.1.push(page);
                continue;
            }
            parameters.bytes += bytes.len();
            let pages = &mut parameters.pages;
            pages.objects.push(object);
            pages.pages.push(page);
            pages.bytes.push(Bytes(bytes.clone()));
            pages.sums.push(sum(*place, bytes));
        }
        parameters
    }

    /// The values behind `first`, in the order of the statement.
    pub(crate) fn values<'a>(&'a self, first: &[&'a (dyn ToSql + Sync); 3]) -> Vec<&'a (dyn ToSql + Sync)> {
        let (objects, pages) = (&self.objects, &self.pages);
        let mut values = first.to_vec();
        let rest: [&(dyn ToSql + Sync); 14] = [
            &self.calls,
            &self.object_next,
            &objects.ids,
            &objects.names,
            &objects.sizes,
            &objects.versions,
            &objects.addresses,
            &pages.objects,
            &pages.pages,
            &pages.bytes,
            &pages.sums,
            &self.zeroes.0,
            &self.zeroes.1,
            &self.removed,
        ];
        values.extend(rest);
        values
    }
}

/// The sum of a page, as the table has it.
pub(crate) fn sum((object, page): Place, bytes: &[u8]) -> i64 {
    // An odd factor keeps different objects apart for every page that one can have.
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    let sum = XxHash3_64::oneshot_with_seed(object.wrapping_mul(SPREAD) ^ page, bytes);
    i64::from_ne_bytes(sum.to_ne_bytes())
}
