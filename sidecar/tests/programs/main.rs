//! Capture is complete: random SQL programs over random schemas, each from one seed.
//!
//! A program runs twice, on a database with Rowcast and on one without. The service must see the same with and without;
//! the events must add up to the rows, type for type and bit for bit; and a node that gets the events must have the
//! same rows.
//!
//! `ROWCAST_PROGRAMS` sets how many run, `ROWCAST_PROGRAM_FIRST` the first seed, `ROWCAST_PROGRAM_SEED` repeats one.
#![expect(clippy::disallowed_methods, reason = "the test plays the service, which opens its own database")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod compare;
mod found;
mod kinds;
mod node;
#[path = "../../../tests/src/random.rs"]
#[expect(dead_code, unreachable_pub, reason = "shared; not all of it is used here")]
mod random;
mod schema;
#[path = "../stage/mod.rs"]
mod stage;
mod statements;
mod values;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use rowcast::replica::Input;
use rusqlite::Connection;

use self::compare::{Rows, difference, folded, rows, run, written_rows};
use self::kinds::Kinds;
use self::node::Node;
use self::random::Random;
use self::schema::Schema;
use self::stage::{declaration, service};
use self::statements::Step;

/// How many run where nobody says otherwise.
const PROGRAMS: u64 = 3_000;

/// The end of a program in which SQLite itself does something else where there are triggers, as documented.
const UNLIKE: &str = "unlike by a known limit";

/// What comes behind that is not looked at.
const ENDED_EARLY: &str = "outcome: ended early by a known limit";

/// What a seed stands for.
#[derive(Clone)]
struct Program {
    schema: Schema,
    before: Vec<Step>,
    steps: Vec<Step>,
    /// The other node hears the feed; else it fetches everything.
    fed: bool,
    kinds: Kinds,
}

impl Program {
    fn of(seed: u64) -> Self {
        let mut random = Random::seeded(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ seed);
        let mut kinds = Kinds::default();
        let schema = schema::generate(&mut random, &mut kinds);
        let (before, steps) = statements::generate(&mut random, &mut kinds, &schema);
        let fed = random.chance(2, 3);
        kinds.hit(if fed { "run: fed" } else { "run: fetched" });
        Self { schema, before, steps, fed, kinds }
    }

    /// How many statements of the schema, rows from before, or steps it has.
    fn parts(&self, part: usize) -> usize {
        [self.schema.sql.len(), self.before.len(), self.steps.len()][part]
    }

    fn without(&self, part: usize, at: usize) -> Self {
        let mut program = self.clone();
        match part {
            0 => drop(program.schema.sql.remove(at)),
            1 => drop(program.before.remove(at)),
            _ => drop(program.steps.remove(at)),
        }
        program
    }

    fn toml(&self) -> String {
        let quoted = |name: &String| name.replace('\\', "\\\\").replace('"', "\\\"");
        let tables: String = self.schema.names.iter().map(|name| format!("[tables.\"{}\"]\n", quoted(name))).collect();
        format!("service = \"s\"\n{tables}")
    }

    fn text(&self) -> String {
        let step = |step: &Step| match step {
            Step::Sql(sql) => format!("{sql};\n"),
            Step::Ingest(None) => "-- the sidecar works\n".to_owned(),
            Step::Ingest(Some(pieces)) => format!("-- the sidecar works, {pieces} pieces\n"),
        };
        let schema: String = self.schema.sql.iter().map(|sql| format!("{sql};\n")).collect();
        let [before, steps] = [&self.before, &self.steps].map(|steps| steps.iter().map(step).collect::<String>());
        format!("{schema}-- rows from before\n{before}-- Rowcast is installed\n{steps}-- fed: {}\n", self.fed)
    }
}

/// The databases of one program: in memory where the system has such a folder, since nothing here is about the disk.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

fn database(path: &Path, schema: &Schema) -> Connection {
    let connection = service(path, "PRAGMA synchronous = normal; PRAGMA foreign_keys = off");
    for sql in &schema.sql {
        connection.execute_batch(sql).unwrap_or_else(|error| panic!("the schema is no schema: {error}: {sql}"));
    }
    connection
}

/// Runs a program, and says what is wrong.
fn play(program: &Program, kinds: &mut Kinds) -> Result<(), String> {
    let folder = folder();
    let [path, other_path] = ["app.db", "other.db"].map(|name| folder.path().join(name));
    let service = database(&path, &program.schema);
    let alone = Connection::open_in_memory().unwrap();
    alone.execute_batch("PRAGMA foreign_keys = off").unwrap();
    alone.execute_batch(&program.schema.sql.join(";\n")).unwrap();
    alone.execute_batch(&program.schema.inert.join(";\n")).unwrap();
    for connection in [&service, &alone] {
        connection.execute_batch("CREATE TEMP TABLE reset(a)").unwrap();
    }
    for step in &program.before {
        both(&service, &alone, &program.schema.names, step, kinds)?;
    }
    if rows(&alone, &program.schema.names).values().any(|rows| !rows.is_empty()) {
        kinds.hit("outcome: rows from before Rowcast");
    }
    let declaration = declaration(&program.toml());
    let mut node = Node::start(&path, service, &declaration);
    let (feeds, migrated) = steps(program, &mut node, &alone, kinds)?;

    let tables = &program.schema.names;
    let theirs = rows(&node.service, tables);
    equal("the service's rows are others", ("without Rowcast", &rows(&alone, tables)), ("with", &theirs))?;
    let written = written_rows(&node.service, tables);
    let events = folded(&node.service, tables, kinds);
    equal("the events do not add up to the rows", ("table", &written), ("events", &events))?;

    let other_service = database(&other_path, &program.schema);
    for sql in migrated {
        other_service.execute_batch(&sql).unwrap();
    }
    let mut other = Node::start(&other_path, other_service, &declaration);
    if program.fed {
        for frame in feeds {
            let subject = node.id();
            other.handle(Input::Feed { subject, frame: frame.into() });
            other.run();
        }
    }
    catch_up(&mut node, &mut other)?;
    equal("the other node has other rows", ("here", &theirs), ("there", &rows(&other.service, tables)))
}

fn equal(what: &str, left: (&str, &Rows), right: (&str, &Rows)) -> Result<(), String> {
    difference(left, right).map_or(Ok(()), |difference| Err(format!("{what}:\n{difference}")))
}

/// Takes the steps. Answers what the node sent, and what the service changed of its schema.
fn steps(
    program: &Program,
    node: &mut Node,
    alone: &Connection,
    kinds: &mut Kinds,
) -> Result<(Vec<Vec<u8>>, Vec<String>), String> {
    let names = &program.schema.names;
    let (mut feeds, mut migrated) = (node.sent().feeds, Vec::new());
    for step in &program.steps {
        match step {
            Step::Sql(sql) => {
                both(&node.service, alone, names, step, kinds)?;
                let made = sql.starts_with("CREATE ") && exists(alone, sql.split(" ON ").next().unwrap_or_default());
                migrated.extend(made.then(|| sql.clone()));
            }
            Step::Ingest(pieces) if node.service.is_autocommit() => {
                count_suspects(&node.service, kinds);
                match pieces {
                    None => node.run(),
                    Some(pieces) => {
                        node.handle(Input::Wake);
                        node.work(*pieces);
                    }
                }
                feeds.extend(node.sent().feeds);
            }
            Step::Ingest(_) => {}
        }
    }
    if !node.service.is_autocommit() {
        both(&node.service, alone, names, &Step::Sql("COMMIT".into()), kinds)?;
        both(&node.service, alone, names, &Step::Sql("ROLLBACK".into()), kinds)?;
    }
    count_suspects(&node.service, kinds);
    settle(node);
    feeds.extend(node.sent().feeds);
    Ok((feeds, migrated))
}

/// Whether what `CREATE … "name"` made is there.
fn exists(connection: &Connection, made: &str) -> bool {
    let sql = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE substr(sql, 1, length(?1)) = ?1)";
    connection.query_row(sql, [made], |row| row.get(0)).unwrap()
}

fn both(
    service: &Connection,
    alone: &Connection,
    names: &[String],
    step: &Step,
    kinds: &mut Kinds,
) -> Result<(), String> {
    let Step::Sql(sql) = step else { return Ok(()) };
    let [with, without] = [service, alone].map(|connection| run(connection, sql));
    // Without a trigger SQLite may leave half of such a statement behind.
    let halved = (without.is_of_a_wrong_type() || without.is_broken_off()) && !without.is_autocommit();
    if halved {
        for connection in [service, alone] {
            connection.execute_batch("ROLLBACK").unwrap();
        }
    }
    if sql == "VACUUM" || with.failed() || without.failed() {
        // These leave a `last_insert_rowid` and a `changes` behind of which SQLite promises nothing.
        for connection in [service, alone] {
            connection.execute_batch("INSERT INTO temp.reset VALUES (1); DELETE FROM temp.reset").unwrap();
        }
    }
    if halved {
        let alike = (with.is_of_a_wrong_type(), with.is_broken_off())
            == (without.is_of_a_wrong_type(), without.is_broken_off());
        return if alike { Ok(()) } else { Err(format!("{sql}\n  with Rowcast: {with:?}")) };
    }
    let first = with.is_of_a_wrong_type() && !without.is_of_a_wrong_type();
    let skips = [" OR IGNORE ", " ON CONFLICT "].iter().any(|clause| sql.contains(clause));
    if first || (with.is_of_an_expression() && (without.failed() || skips)) {
        // In a STRICT table any BEFORE trigger makes SQLite look at the types before anything else, and ours computes the
        // expressions of indexes: the error is another one. And what the statement would have ignored, or done to another row
        // instead, is not, so that the two may not be alike any more.
        kinds.hit(if first { "outcome: a wrong type is refused first" } else { "outcome: an expression raises first" });
        let alike = with.is_autocommit() == without.is_autocommit() && rows(service, names) == rows(alone, names);
        return if alike { Ok(()) } else { Err(UNLIKE.to_owned()) };
    }
    // Both refuse a type, and not that of the same value.
    let types = with.is_of_a_wrong_type() && without.is_of_a_wrong_type();
    if sql != "VACUUM" && !types && with != without {
        return Err(format!("{sql}\n  with Rowcast:    {with:?}\n  without Rowcast: {without:?}"));
    }
    if with.is_refusal() {
        kinds.hit("outcome: refused by a constraint");
    }
    if with.changed() {
        kinds.hit("outcome: changed rows");
    }
    Ok(())
}

fn count_suspects(service: &Connection, kinds: &mut Kinds) {
    let sql = "SELECT EXISTS (SELECT 1 FROM _rowcast_journal WHERE op = 4)";
    if service.query_row(sql, [], |row| row.get(0)).unwrap() {
        kinds.hit("outcome: a suspect was journaled");
    }
}

/// Until a node has looked at everything, its comparisons included.
fn settle(node: &mut Node) {
    for _ in 0..3 {
        node.run();
        node.tick(Duration::from_millis(100));
    }
    node.run();
}

/// The other node hears that the first is there, and fetches what it lacks.
fn catch_up(node: &mut Node, other: &mut Node) -> Result<(), String> {
    for _ in 0..100 {
        node.tick(Duration::from_secs(1));
        node.run();
        for presence in node.sent().presences {
            other.handle(Input::Presence(presence.into()));
        }
        other.tick(Duration::from_millis(200));
        other.run();
        for (ask, request) in other.sent().asks {
            let frame = Some(node.answer(&request).into());
            other.handle(Input::Answer { ask, frame });
            other.run();
        }
        if other.replica.store().durable().vector.covers(&node.replica.store().durable().vector) {
            settle(other);
            return Ok(());
        }
    }
    Err(format!("the other node does not catch up: {:?}", other.replica))
}

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// What is wrong with a program.
fn problem(program: &Program, kinds: &mut Kinds) -> Option<String> {
    let played = catch_unwind(AssertUnwindSafe(|| play(program, kinds))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned())).unwrap_or_default())
    });
    if played.as_ref().is_err_and(|problem| problem == UNLIKE) {
        kinds.hit(ENDED_EARLY);
        return None;
    }
    played.err()
}

/// What is wrong with the program of a seed, in a line.
fn failure(seed: u64, kinds: &mut Kinds) -> Option<String> {
    let program = Program::of(seed);
    kinds.add(&program.kinds);
    let problem = problem(&program, kinds)?;
    Some(format!("{seed}: {}", problem.lines().next().unwrap_or_default()))
}

/// The program of a seed without what the failure does not need, and what is wrong with it.
fn shrunk(seed: u64) -> String {
    let kinds = &mut Kinds::default();
    let mut program = Program::of(seed);
    let Some(mut problem_text) = problem(&program, kinds) else { return "it does not fail twice".to_owned() };
    // Another failure of a smaller program is not this one.
    let class = |problem: &str| {
        let line = problem.lines().nth(1).map_or_else(|| problem.rsplit(':').next(), |line| line.split(':').next());
        (
            problem.contains("do not") || problem.contains("others") || problem.contains("other rows"),
            line.map(str::to_owned),
        )
    };
    let mut smaller = true;
    while std::mem::take(&mut smaller) {
        for part in 0..3 {
            for at in (0..program.parts(part)).rev() {
                let without = program.without(part, at);
                if let Some(text) = problem(&without, kinds).filter(|text| class(text) == class(&problem_text)) {
                    (program, problem_text, smaller) = (without, text, true);
                }
            }
        }
    }
    format!("{}\n{problem_text}\nROWCAST_PROGRAM_SEED={seed} repeats it whole", program.text())
}

#[test]
fn what_random_programs_write_is_captured_whole_and_arrives() {
    let mut kinds = Kinds::default();
    if let Some(seed) = setting("ROWCAST_PROGRAM_SEED") {
        println!("{}", Program::of(seed).text());
        assert!(failure(seed, &mut kinds).is_none(), "{}", shrunk(seed));
        return;
    }
    let programs = setting("ROWCAST_PROGRAMS").unwrap_or(PROGRAMS);
    let first = setting("ROWCAST_PROGRAM_FIRST").unwrap_or(1);
    // Each program is by itself: as many at a time as there are processors.
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    let mut failures: Vec<String> = Vec::new();
    std::thread::scope(|scope| {
        let part = |thread| {
            scope.spawn(move || {
                let mut kinds = Kinds::default();
                let seeds = (first..first + programs).filter(|seed| seed % threads == thread);
                let failures: Vec<String> = seeds.filter_map(|seed| failure(seed, &mut kinds)).collect();
                (failures, kinds)
            })
        };
        for thread in (0..threads).map(part).collect::<Vec<_>>() {
            let (failed, met) = thread.join().unwrap();
            failures.extend(failed);
            kinds.add(&met);
        }
    });
    failures.sort_by_key(|failure| failure.split(':').next().and_then(|seed| seed.parse::<u64>().ok()));
    println!("{programs} programs\n{}", kinds.text());
    if let Some(first) = failures.first() {
        let seed = first.split(':').next().and_then(|seed| seed.parse().ok()).unwrap();
        panic!("{}\n{} of {programs} programs failed:\n{}", shrunk(seed), failures.len(), failures.join("\n"));
    }
    // Few programs cannot meet everything.
    if programs >= PROGRAMS {
        let early = kinds.count(ENDED_EARLY);
        assert!(100 * early <= programs, "{early} of {programs} programs were not looked at to their ends");
        assert_eq!(kinds.never(), Vec::<&str>::new(), "no program met these");
    }
}

#[test]
fn a_seed_is_a_program() {
    for seed in 1..200 {
        assert_eq!(Program::of(seed).text(), Program::of(seed).text());
        assert_ne!(Program::of(seed).text(), Program::of(seed + 1).text());
    }
}
