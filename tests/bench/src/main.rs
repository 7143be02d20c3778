//! `just bench`: takes the arguments, runs the groups, shows and writes what they found.

use std::cmp::Ordering;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use rowcast_tests::binary;

use rowcast_bench::bench::Bench;
use rowcast_bench::figures::Measured;
use rowcast_bench::groups::{GROUPS, Group};
use rowcast_bench::machine::Machine;
use rowcast_bench::{report, service, stats};

/// A ratio this many times off its goal is no noise.
const OFF: f64 = 3.0;

/// The same where the sidecar's own code is in the figure: a debug build of it is slow, and the floors are not.
const OFF_OWN: f64 = if cfg!(debug_assertions) { 10.0 } else { OFF };

/// Memory is no matter of luck: some more than its goal, for a debug build is larger.
const OFF_MEMORY: f64 = 1.5;

/// What a short run on a busy machine can judge: medians beside their floors, memory and counts.
const JUDGED: [(&str, f64); 7] = [
    ("write_cost_single_ratio", OFF),
    ("write_cost_batch100_ratio", OFF),
    ("latency_over_hop_ratio", OFF_OWN),
    ("throughput_over_service", OFF_OWN),
    ("catchup_over_floor", OFF_OWN),
    ("rss_backlog_mb", OFF_MEMORY),
    ("service_busy_errors", 1.0),
];

/// When a whole run has taken this long, the groups that may be left out are.
const LONG: Duration = Duration::from_secs(420);

/// Measures Rowcast beside its floors.
#[derive(Parser)]
#[command(name = "just bench")]
struct Arguments {
    /// The groups to measure; all of them when none is named.
    groups: Vec<String>,
    /// Name the groups and their figures, and measure nothing.
    #[arg(long)]
    list: bool,
    /// Measure less, in about a minute and a half, and fail when a ratio is off by 3 or memory is not bounded.
    #[arg(long)]
    short: bool,
    /// Put the table into docs/performance.md.
    #[arg(long)]
    write_docs: bool,
    /// The folder for summary.json, run.json and table.md.
    #[arg(long, default_value = "target/bench")]
    output: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        print!("{}", report::list());
        return ExitCode::SUCCESS;
    }
    let groups = match chosen(&arguments) {
        Ok(groups) => groups,
        Err(unknown) => {
            let names: Vec<&str> = GROUPS.iter().map(|group| group.name).collect();
            eprintln!("{unknown} is no group. There are: {}", names.join(", "));
            return ExitCode::from(2);
        }
    };
    let machine = Machine::look();
    eprintln!("{machine}");
    binary::rowcast();
    let bench = Bench::start(arguments.short);
    let start = Instant::now();
    let mut measured = Vec::new();
    for group in groups {
        if group.may_wait && arguments.groups.is_empty() && start.elapsed() > LONG {
            bench.note(format!("left out, to be done in ten minutes: `just bench {}`", group.name));
            continue;
        }
        let start = Instant::now();
        eprintln!("{}: {}", group.name, group.about);
        measured.extend((group.run)(&bench));
        eprintln!("    {:.0} s", start.elapsed().as_secs_f64());
    }
    measured.push(busy_errors());
    let report = report::Report { machine, measured, notes: bench.notes(), took: start.elapsed() };
    println!("\n{}", report.table());
    report.write(&arguments.output);
    if arguments.write_docs {
        report.write_docs(&binary::root().join("docs/performance.md"));
    }
    if arguments.short { judge(&report.measured, arguments.groups.is_empty()) } else { ExitCode::SUCCESS }
}

fn chosen(arguments: &Arguments) -> Result<Vec<&'static Group>, String> {
    let named = |name: &String| GROUPS.iter().find(|group| group.name == *name).ok_or_else(|| name.clone());
    match arguments.groups.as_slice() {
        [] => Ok(GROUPS.iter().filter(|group| group.in_short || !arguments.short).collect()),
        names => names.iter().map(named).collect(),
    }
}

fn busy_errors() -> Measured {
    let mut errors = stats::Samples::default();
    errors.single(stats::count(service::busy_errors()));
    Measured::new("service_busy_errors", errors.median())
}

/// A short run fails only on what cannot be noise; and on what was not measured, where `all` should have been.
fn judge(measured: &[Measured], all: bool) -> ExitCode {
    let mut fine = true;
    for (name, bound) in JUDGED {
        let found = measured.iter().find(|one| one.figure.name == name);
        let Some(one) = found else {
            if all {
                fine = false;
                eprintln!("{name} was not measured");
            }
            continue;
        };
        let off = one.figure.goal.missed_by(one.value.value);
        // What is no number is within no bound.
        if !matches!(off.partial_cmp(&bound), Some(Ordering::Less | Ordering::Equal)) {
            fine = false;
            eprintln!("{name} is {:.3}, {off:.1} times off its goal", one.value.value);
        }
    }
    if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
