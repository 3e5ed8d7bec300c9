//! The `longwire` program: reads the command line, runs the command, and alone decides how it exits:
//! 0 = done, 1 = it did not work, 2 = it was asked for wrongly.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let (code, error) = match cli::run(cli::Cli::parse()) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(cli::Failure::Asked(error)) => (2, error),
        Err(cli::Failure::Ran(error)) => (1, error),
    };
    eprintln!("longwire: {error}");
    ExitCode::from(code)
}
