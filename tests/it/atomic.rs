//! A transaction is seen whole on another node, or not at all; and nothing is seen before its cause.

use std::thread;
use std::time::Duration;

use rowcast_tests::process::Signal;
use rowcast_tests::{Bus, Cluster, NatsServer, Node, Proxy, Story, eventually, eventually_eq, meanwhile};

/// A bank: what leaves one account arrives on another, and both entries are written down.
const BANK: &str = "
CREATE TABLE accounts(id INTEGER NOT NULL PRIMARY KEY, balance INTEGER NOT NULL);
CREATE TABLE transfers(id TEXT NOT NULL PRIMARY KEY, amount INTEGER NOT NULL);
CREATE TABLE entries(transfer TEXT NOT NULL, side TEXT NOT NULL, amount INTEGER NOT NULL, PRIMARY KEY(transfer, side));
INSERT INTO accounts SELECT value, 1000 FROM (WITH RECURSIVE s(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM s WHERE value < 10) SELECT value FROM s);";

/// What holds before and after every transfer, and in the middle of none.
const INVARIANT: &str = "SELECT (SELECT sum(balance) FROM accounts) = 10000
  AND (SELECT count(*) * 2 FROM transfers) = (SELECT count(*) FROM entries)
  AND (SELECT coalesce(sum(amount), 0) FROM entries) = 0";

#[test]
fn a_transaction_over_three_tables_is_never_seen_in_part() {
    let nats = NatsServer::start();
    let cluster = Cluster::start(&nats, BANK, ["a", "b"]);
    let [a, b] = cluster.nodes();
    never_in_part(&b, || {
        transfer(&a, 0..600, 1);
        cluster.converged();
    });
}

#[test]
fn nor_after_a_gap_was_fetched() {
    let nats = NatsServer::start();
    let mut cluster = Cluster::prepare(&nats, BANK, ["a"]).started();
    let [a] = cluster.nodes();
    let b = cluster.add("b");
    let link = Proxy::to(&nats);
    b.through(&link.url());
    b.start();
    b.ready();
    never_in_part(&b, || {
        for round in 0..6 {
            // Now and then some live messages are lost; now and then the whole link.
            // It has what was written while the link was cut, so the link is whole again.
            cluster.converged();
            let lost = link.lost();
            link.lose(|subject| subject.contains(".events."));
            transfer(&a, round * 100..round * 100 + 50, 1);
            eventually!(link.lost() > lost);
            link.lose_nothing();
            if round % 2 == 0 {
                link.cut();
            }
            transfer(&a, round * 100 + 50..round * 100 + 100, 1);
            link.heal();
        }
        cluster.converged();
    });
}

#[test]
fn nor_after_a_backlog_of_a_hundred_thousand_rows_for_a_receiver_that_was_away() {
    let nats = NatsServer::start();
    let cluster = Cluster::start(&nats, BANK, ["a", "b"]);
    let [a, b] = cluster.nodes();
    assert!(b.stop().success());
    // A transfer writes five rows; ten to a transaction.
    transfer(&a, 0..20_000, 10);
    never_in_part(&b, || {
        b.start();
        cluster.converged();
    });
    assert_eq!(b.number("SELECT count(*) FROM entries"), 40_000);
}

#[test]
fn nor_after_a_backlog_of_a_hundred_thousand_rows_of_an_author_whose_sidecar_was_away() {
    let nats = NatsServer::start();
    let cluster = Cluster::start(&nats, BANK, ["a", "b"]);
    let [a, b] = cluster.nodes();
    assert!(a.stop().success());
    transfer(&a, 0..20_000, 10);
    never_in_part(&b, || {
        a.start();
        cluster.converged();
    });
    assert_eq!(b.number("SELECT count(*) FROM entries"), 40_000);
}

#[test]
fn one_transaction_of_many_rows_is_seen_whole() {
    let nats = NatsServer::start();
    let cluster =
        Cluster::start(&nats, "CREATE TABLE rows(id INTEGER NOT NULL PRIMARY KEY, n INTEGER, pad TEXT)", ["a", "b"]);
    let [a, b] = cluster.nodes();
    let service = b.service();
    a.sql("INSERT INTO rows SELECT value, 0, printf('%.*c', 200, 'x') FROM
           (WITH RECURSIVE s(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM s WHERE value < 20000) SELECT value FROM s)");
    let seen = || -> (i64, i64) {
        service
            .query_row("SELECT count(*), coalesce(sum(n), 0) FROM rows", [], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
    };
    eventually!({
        let (count, _) = seen();
        assert!(count == 0 || count == 20_000, "{count} of 20,000 rows were seen");
        count == 20_000
    });
    a.sql("UPDATE rows SET n = 1");
    eventually!({
        let (count, sum) = seen();
        assert!(count == 20_000 && (sum == 0 || sum == 20_000), "{count} rows, {sum} of them updated");
        sum == 20_000
    });
}

#[test]
fn an_answer_is_never_seen_before_its_question_when_the_question_is_late() {
    let nats = NatsServer::start();
    let (cluster, link, origin) = three_of_whom_one_is_behind_a_link(&nats);
    let [a, b, c] = cluster.nodes();
    // What A says never reaches C: it has to notice, and to fetch it.
    link.lose(move |subject| subject.ends_with(&format!(".events.{origin}")));
    no_answer_without_question(&c, || {
        for number in 0..40 {
            a.sql(&format!("INSERT INTO questions VALUES ({number}, 'why?')"));
            eventually_eq!(b.number("SELECT count(*) FROM questions"), number + 1);
            b.sql(&format!("INSERT INTO answers VALUES ({number}, {number}, 'because')"));
            eventually_eq!(a.number("SELECT count(*) FROM answers"), number + 1);
        }
        cluster.converged();
    });
    assert!(link.lost() > 0, "messages of A were lost on the way to C");
    assert_eq!(c.number("SELECT count(*) FROM answers"), 40);
}

#[test]
fn a_question_whose_author_is_frozen_is_fetched_from_another_node() {
    let nats = NatsServer::start();
    let (cluster, link, origin) = three_of_whom_one_is_behind_a_link(&nats);
    let [a, b, c] = cluster.nodes();
    link.lose(move |subject| subject.ends_with(&format!(".events.{origin}")));
    no_answer_without_question(&c, || {
        for number in 0..3 {
            a.sql(&format!("INSERT INTO questions VALUES ({number}, 'why?')"));
            // Frozen as soon as B has it: C can have it from B alone.
            eventually_eq!(b.number("SELECT count(*) FROM questions"), number + 1);
            a.signal(Signal::STOP);
            b.sql(&format!("INSERT INTO answers VALUES ({number}, {number}, 'because')"));
            eventually_eq!(c.rows("SELECT id FROM answers ORDER BY id DESC LIMIT 1"), [number.to_string()]);
            a.signal(Signal::CONT);
            eventually_eq!(a.number("SELECT count(*) FROM answers"), number + 1);
        }
    });
    cluster.converged();
}

#[test]
fn what_is_said_on_the_bus_is_in_the_event_tables_first() {
    let nats = NatsServer::start();
    let cluster = Cluster::start(&nats, BANK, ["a"]);
    let [a] = cluster.nodes();
    let bus = Bus::connect(&nats);
    let origin = a.status()["node_id"].as_str().expect("a node knows its id").to_owned();
    let mut events = bus.subscribe("rowcast.story.events.>");
    let mut presence = bus.subscribe("rowcast.story.presence");
    transfer(&a, 0..10, 1);
    let first = events.next(Duration::from_secs(20)).expect("an event message");
    assert_eq!(first.subject, format!("rowcast.story.events.{origin}"));
    assert!(presence.next(Duration::from_secs(20)).is_some(), "presence is told every second");
    // Persisted before it was said.
    assert!(a.number("SELECT count(*) FROM transfers_Events") > 0);
}

/// A and B on the server itself, C behind a link; and the id of A.
fn three_of_whom_one_is_behind_a_link(nats: &NatsServer) -> (Cluster, Proxy, String) {
    let sql = "CREATE TABLE questions(id INTEGER NOT NULL PRIMARY KEY, text TEXT);
               CREATE TABLE answers(id INTEGER NOT NULL PRIMARY KEY, question INTEGER NOT NULL REFERENCES questions, text TEXT)";
    let mut cluster = Cluster::start(nats, sql, ["a", "b"]);
    let link = Proxy::to(nats);
    let c = cluster.add("c");
    c.through(&link.url());
    c.start();
    c.ready();
    let origin = cluster.nodes::<3>()[0].status()["node_id"].as_str().expect("a node knows its id").to_owned();
    (cluster, link, origin)
}

fn no_answer_without_question(node: &Node, story: impl FnOnce()) {
    let sql = "SELECT NOT EXISTS (SELECT 1 FROM answers WHERE question NOT IN (SELECT id FROM questions))";
    holds_throughout(node, sql, story);
}

fn never_in_part(node: &Node, story: impl FnOnce()) {
    holds_throughout(node, INVARIANT, story);
}

/// Looks at `node` again and again while the story goes on: the query gives 1 at every moment.
fn holds_throughout(node: &Node, invariant: &str, story: impl FnOnce()) {
    let watch = |story: &Story| {
        let service = node.service();
        let mut looks = 0_u64;
        while story.goes_on() {
            // One statement is one read transaction.
            let whole: bool = service.query_row(invariant, [], |row| row.get(0)).unwrap();
            assert!(whole, "{} shows a part of a whole", node.name());
            looks += 1;
            thread::sleep(Duration::from_millis(1));
        }
        looks
    };
    let looks = meanwhile(watch, story);
    assert!(looks > 20, "it was looked at only {looks} times");
}

/// Transfers between accounts, `together` to a transaction.
fn transfer(node: &Node, numbers: std::ops::Range<i64>, together: usize) {
    let service = node.service();
    let numbers: Vec<i64> = numbers.collect();
    for some in numbers.chunks(together) {
        service.execute_batch("BEGIN IMMEDIATE").unwrap();
        for number in some {
            let (from, to, amount) = (number % 10 + 1, (number + 3) % 10 + 1, number % 7 + 1);
            let id = format!("t{number}");
            let run = |sql: &str, cells: &[&dyn rusqlite::ToSql]| {
                service.prepare_cached(sql).unwrap().execute(cells).unwrap();
            };
            run("UPDATE accounts SET balance = balance - ?1 WHERE id = ?2", &[&amount, &from]);
            run("INSERT INTO entries VALUES (?1, 'from', ?2)", &[&id, &-amount]);
            run("INSERT INTO transfers VALUES (?1, ?2)", &[&id, &amount]);
            run("INSERT INTO entries VALUES (?1, 'to', ?2)", &[&id, &amount]);
            run("UPDATE accounts SET balance = balance + ?1 WHERE id = ?2", &[&amount, &to]);
        }
        service.execute_batch("COMMIT").unwrap();
    }
}
