//! `rowcast members`: who belongs to the cluster, and how one that is gone for good is retired.

use clap::{Args, Subcommand};

use super::listing::{Database, show};
use super::{Error, outside, print};
use crate::position::NodeId;
use crate::steady::membership::{Enrolled, Standing};

/// List the members that this node knows, or retire one that is gone for good.
///
/// Every node that was ever heard is a member: what it lacks is kept for it. A majority of the members expels one that
/// is silent for `member_timeout`; of two members only an operator can. Works on the database file, beside a running sidecar.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show the members, without this node itself
    List {
        #[command(flatten)]
        database: Database,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Expel a member: nothing is kept for it any more, on no node
    ///
    /// This cannot be taken back. A node that is expelled while it is still there notices it, takes a new node id and
    /// loads everything again; what it had not shared goes along. Run it on one node of those that stay.
    Expel {
        #[command(flatten)]
        database: Database,
        /// The member's name, or its id where several have that name
        member: String,
    },
}

pub(super) async fn members(arguments: Arguments) -> Result<(), Error> {
    match arguments.what {
        What::List { database, json } => {
            let members = outside::members(&database.database).await?;
            show(json, &as_json(&members), |_| as_text(&members))
        }
        What::Expel { database, member } => {
            let members = outside::members(&database.database).await?;
            let node = find(&members, &member)?;
            outside::expel(&database.database, node).await?;
            print(&format!("{member} ({node}) is expelled; the other nodes hear it from this one's sidecar\n"))
        }
    }
}

/// The one member of that name or id that is not expelled.
fn find(members: &[Enrolled], wanted: &str) -> Result<NodeId, Error> {
    let fits = |member: &&Enrolled| {
        member.standing != Standing::Expelled && (member.name == wanted || member.node.to_string() == wanted)
    };
    match *members.iter().filter(fits).collect::<Vec<_>>() {
        [member] => Ok(member.node),
        ref found => Err(Error::NoMember { member: wanted.to_owned(), count: found.len() }),
    }
}

fn as_json(members: &[Enrolled]) -> serde_json::Value {
    let member = |member: &Enrolled| {
        serde_json::json!({
            "id": member.node.to_string(),
            "name": member.name,
            "standing": member.standing.word(),
            "heard_at": member.heard_at.to_string(),
        })
    };
    serde_json::json!({ "members": members.iter().map(member).collect::<Vec<_>>() })
}

fn as_text(members: &[Enrolled]) -> String {
    if members.is_empty() {
        return "no other node was ever heard\n".to_owned();
    }
    let mut text = String::new();
    for member in members {
        let name = if member.name.is_empty() { "(no name told)" } else { &member.name };
        let (node, standing, heard_at) = (member.node, member.standing.word(), member.heard_at);
        text.push_str(&format!("{name}  {node}  {standing}, heard last {heard_at}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::steady::membership::Said;

    fn member(id: u128, name: &str, standing: Standing) -> Enrolled {
        Enrolled {
            node: NodeId(uuid::Uuid::from_u128(id)),
            name: name.into(),
            heard_at: Timestamp::from_millis(1_709_210_096_000),
            said: Said::default(),
            standing,
        }
    }

    #[test]
    fn a_member_is_found_by_a_name_that_only_one_has_or_by_its_id() {
        let members = [
            member(1, "a", Standing::Member),
            member(2, "a", Standing::Expelled),
            member(3, "b", Standing::Lost),
            member(4, "b", Standing::Member),
        ];
        assert_eq!(find(&members, "a").unwrap(), members[0].node);
        assert_eq!(find(&members, &members[2].node.to_string()).unwrap(), members[2].node);
        assert!(matches!(find(&members, "b"), Err(Error::NoMember { count: 2, .. })));
        assert!(matches!(find(&members, "c"), Err(Error::NoMember { count: 0, .. })));
        let first = "a  00000000-0000-0000-0000-000000000001  member, heard last 2024-02-29T12:34:56";
        assert!(as_text(&members[..2]).starts_with(first), "{}", as_text(&members));
        assert_eq!(as_text(&[]), "no other node was ever heard\n");
    }
}
