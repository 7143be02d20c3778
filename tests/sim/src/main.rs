//! Runs one seed and tells its story, or many and counts.

use std::process::ExitCode;

use clap::Parser;
use rowcast_sim::runner;

/// A simulated Rowcast cluster: one seed, one history.
#[derive(Debug, Parser)]
struct Arguments {
    /// The seed whose story is told.
    seed: Option<u64>,
    /// Runs this many seeds instead, from `--from` on, and prints what failed.
    #[arg(long, conflicts_with = "seed")]
    seeds: Option<u64>,
    /// The first of many seeds.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Processes at once; none means one a core.
    #[arg(long)]
    jobs: Option<usize>,
    /// Ends at the first failure.
    #[arg(long)]
    fail_fast: bool,
    /// One of many processes: prints a line a seed for the one that started it.
    #[arg(long, hide = true)]
    worker: bool,
    /// Sidecars speak in the story, too.
    #[arg(long)]
    log: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.log {
        tracing_subscriber::fmt()
            .without_time()
            .with_writer(std::io::stderr)
            .with_max_level(tracing::Level::DEBUG)
            .init();
    }
    let right = match (arguments.seed, arguments.seeds) {
        (_, Some(seeds)) if arguments.worker => runner::worker(arguments.from, seeds),
        (_, Some(seeds)) => runner::many(arguments.from, seeds, arguments.jobs, arguments.fail_fast).is_right(),
        (Some(seed), None) => runner::story(seed),
        (None, None) => {
            eprintln!("give a seed, or --seeds N");
            return ExitCode::from(2);
        }
    };
    if right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
