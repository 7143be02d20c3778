//! The members on the disk: the table `_rowcast_members`. What they mean is for `steady::membership`.

use std::path::Path;

use rowcast_schema::bookkeeping;
use rusqlite::Connection;

use super::error::{Doing as _, Error, damaged};
use super::tx::Tx;
use super::{Store, open, parse};
use crate::clock::Timestamp;
use crate::position::NodeId;
use crate::steady::membership::{Enrolled, Said, Standing};

impl Store {
    /// All members that are stored.
    ///
    /// # Errors
    /// When SQLite fails, or the table holds what we did not write.
    pub fn members(&self) -> Result<Vec<Enrolled>, Error> {
        read(&self.connection)
    }
}

impl Tx<'_> {
    /// Stores members as they are now. One that is expelled stays so, whatever is said here: an operator may have said it.
    pub fn save_members(&self, members: &[Enrolled]) -> Result<(), Error> {
        let mut statement = self
            .connection
            .prepare_cached(
                "INSERT INTO _rowcast_members (node, name, heard_at, vector, stamp, lost, standing) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT (node) DO UPDATE SET name = excluded.name, heard_at = excluded.heard_at, vector = excluded.vector,
                 stamp = excluded.stamp, lost = excluded.lost,
                 standing = CASE standing WHEN 'expelled' THEN standing ELSE excluded.standing END",
            )
            .doing("store the members")?;
        for member in members {
            let json = "bug: node ids have a JSON form";
            statement
                .execute((
                    member.node.to_string(),
                    &member.name,
                    member.heard_at.millis(),
                    serde_json::to_string(&member.said.vector).expect(json),
                    member.said.stamp.0,
                    serde_json::to_string(&member.said.lost).expect(json),
                    member.standing.word(),
                ))
                .doing("store the members")?;
        }
        Ok(())
    }

    /// The nodes that are expelled.
    pub fn expelled(&self) -> Result<Vec<NodeId>, Error> {
        expelled(self.connection)
    }

    /// Forgets a node: it was this one, under an id that it has left.
    pub fn forget_member(&self, node: NodeId) -> Result<(), Error> {
        self.connection
            .execute("DELETE FROM _rowcast_members WHERE node = ?1", [node.to_string()])
            .doing("forget a member")
            .map(drop)
    }
}

fn expelled(connection: &Connection) -> Result<Vec<NodeId>, Error> {
    let nodes: Vec<String> = connection
        .prepare_cached("SELECT node FROM _rowcast_members WHERE standing = 'expelled'")
        .and_then(|mut statement| statement.query_map([], |row| row.get(0))?.collect())
        .doing("list the expelled members")?;
    nodes.iter().map(|node| parse(bookkeeping::MEMBERS, node)).collect()
}

fn read(connection: &Connection) -> Result<Vec<Enrolled>, Error> {
    type Row = (String, String, i64, String, i64, String, String);
    let rows: Vec<Row> = connection
        .prepare("SELECT node, name, heard_at, vector, stamp, lost, standing FROM _rowcast_members ORDER BY node")
        .and_then(|mut statement| {
            let row = |row: &rusqlite::Row<'_>| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?))
            };
            statement.query_map([], row)?.collect()
        })
        .doing("read the members")?;
    let member = |(node, name, heard_at, vector, stamp, lost, standing): Row| {
        let broken = |error: serde_json::Error| damaged(bookkeeping::MEMBERS, error);
        Ok(Enrolled {
            node: parse(bookkeeping::MEMBERS, &node)?,
            name,
            heard_at: Timestamp::from_millis(heard_at),
            said: Said {
                vector: serde_json::from_str(&vector).map_err(broken)?,
                stamp: Timestamp(stamp),
                lost: serde_json::from_str(&lost).map_err(broken)?,
            },
            standing: Standing::parse(&standing)
                .ok_or_else(|| damaged(bookkeeping::MEMBERS, format!("an unknown standing {standing}")))?,
        })
    };
    rows.into_iter().map(member).collect()
}

/// What an operator sees of the members, from beside a running sidecar.
///
/// # Errors
/// When the file is missing or unusable, or Rowcast is not in it.
pub fn members_of(path: &Path) -> Result<Vec<Enrolled>, Error> {
    read(&open::for_reading(path)?)
}

/// Expels a member by an operator's word, beside a running sidecar or without one. Answers whether it was there, by id
/// or by a name that only one has, and not expelled yet.
///
/// # Errors
/// When the file is missing or unusable, or Rowcast is not in it.
pub fn expel(path: &Path, node: NodeId) -> Result<bool, Error> {
    if !path.exists() {
        return Err(Error::Missing { path: path.to_owned() });
    }
    let connection = open::for_writing(path)?;
    connection
        .execute(
            "UPDATE _rowcast_members SET standing = 'expelled' WHERE node = ?1 AND standing <> 'expelled'",
            [node.to_string()],
        )
        .doing("expel a member")
        .map(|changed| changed == 1)
}
