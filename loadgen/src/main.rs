//! `loadgen`: see the library's page, or `loadgen --help`.

use std::process::ExitCode;

use loadgen::cli::{self, Refusal};
use loadgen::conduct::conduct;
use loadgen::exit::Exit;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::understand(std::env::args_os()) {
        Ok(command) => conduct(command),
        Err(Refusal::Shown(text)) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(Refusal::Wrong(line)) => {
            eprintln!("{line}");
            Exit::Usage.into()
        }
    }
}
