//! The command `mxscreen`.

use std::process::ExitCode;

use screen_user::operate::{
    cli::Cli,
    command,
    exit::{Code, Failure},
};

fn main() -> ExitCode {
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing can be done about a terminal that does not take the text.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(Code::Usage as u8) } else { ExitCode::SUCCESS };
        }
    };
    match command::execute(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, message }) => {
            for line in message.lines() {
                eprintln!("mxscreen: {line}");
            }
            ExitCode::from(code as u8)
        }
    }
}
