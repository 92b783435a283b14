//! What can be wrong with a configuration, and where.

use std::{fmt, sync::Arc};

/// Where something stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// A file as a whole, or a line of it.
    File {
        /// The file as it was named.
        path: Arc<str>,
        /// The line, from 1, where it is known.
        line: Option<u32>,
        /// The column, from 1, in characters, where it is known.
        column: Option<u32>,
    },
    /// An override on the command line, as it was given.
    Override(Arc<str>),
}

impl Place {
    /// A file as a whole.
    #[must_use]
    pub fn file(path: &str) -> Self {
        Self::File { path: path.into(), line: None, column: None }
    }

    /// A line of a file.
    #[must_use]
    pub fn line(path: &str, line: u32) -> Self {
        Self::File { path: path.into(), line: Some(line), column: None }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line, column } => {
                f.write_str(path)?;
                for number in [line, column].into_iter().map_while(|number| *number) {
                    write!(f, ":{number}")?;
                }
                Ok(())
            }
            Self::Override(text) => write!(f, "--set {text}"),
        }
    }
}

/// One thing that is wrong, or worth a warning. Its text is one line.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What.
    pub message: String,
    /// What was perhaps meant, or what to do.
    pub suggestion: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match &self.suggestion {
            Some(suggestion) => format!("{}: {}; {suggestion}", self.place, self.message),
            None => format!("{}: {}", self.place, self.message),
        };
        // Names and values come from the file as they are; a line of a report must stay one line.
        for letter in text.chars() {
            if letter.is_control() {
                write!(f, "{}", letter.escape_default())?;
            } else {
                write!(f, "{letter}")?;
            }
        }
        Ok(())
    }
}

/// Everything that is wrong, in the order of the file. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
