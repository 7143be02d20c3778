//! What became of each event in the end: somebody keeps it, or it went out, or a greater one of its record did; or its
//! author was given up meanwhile, and put aside what did not hold.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;

use super::{Changed, Judge, Known, TABLES, Version};
use crate::story::Story;

/// What nodes put aside when they came back under another id: table, record, and the row, or none for a delete.
pub type Aside = BTreeSet<(String, String, Option<String>)>;

/// An event of a record, and whether it is kept, or went out in time.
type Seen<'a> = (Version, &'a Known, bool);

/// Reads what a node has put aside.
///
/// # Errors
/// When SQLite fails.
pub fn read_aside(connection: &Connection, aside: &mut Aside) -> rusqlite::Result<()> {
    let mut statement =
        connection.prepare("SELECT table_name, record_id, found FROM _rowcast_mended WHERE what = 'unshared'")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    for row in rows {
        aside.insert(row?);
    }
    Ok(())
}

impl Judge {
    /// Changes whose events are gone without a word: nobody keeps them, they never went out in time, and no greater event of
    /// the record did.
    pub fn unkept(&self, aside: &Aside, story: &mut Story) -> Vec<String> {
        let counts = |id: &(rowcast::position::NodeId, u64)| {
            let in_time = || self.left.get(&id.0).is_none_or(|known| id.1 <= *known);
            self.holders.contains_key(id) || (self.sent.contains_key(id) && in_time())
        };
        let mut of_record: BTreeMap<(&str, &str), Vec<Seen<'_>>> = BTreeMap::new();
        for (id, known) in self.events.iter().flat_map(|(id, known)| known.iter().map(move |known| (id, known))) {
            let version = (known.timestamp, id.0, id.1);
            of_record.entry((&known.table, &known.record)).or_default().push((version, known, counts(id)));
        }
        let mut unkept = Vec::new();
        for (_, node, done) in &self.promised {
            for Changed { table, record, after, seen, .. } in &done.changed {
                let announced = TABLES.iter().any(|of| of.name == *table && of.announced);
                let (Some(after), true, false) = (after, *seen, announced) else { continue };
                let events = of_record.get(&(*table, record.as_str())).map_or(&[][..], Vec::as_slice);
                let own = events.iter().filter(|(_, known, _)| known.data.as_ref() == Some(after));
                let Some(latest) = own.map(|(version, ..)| *version).max() else { continue };
                // What its author replaced itself may be compacted before anybody hears of either; the later one is held to it.
                let stands = |(version, _, counts): &Seen<'_>| {
                    (*counts && latest <= *version) || (version.1 == latest.1 && latest < *version)
                };
                if events.iter().any(stands) {
                    continue;
                }
                if aside.iter().any(|(of, what, _)| of == table && what == record) {
                    story.count("writes put aside");
                    continue;
                }
                unkept.push(format!("node {node}: {table} {record} {after}: its event is gone"));
                unkept
                    .extend(self.events_of(table, record).into_iter().map(|event| format!("  of its events: {event}")));
            }
        }
        unkept
    }
}
