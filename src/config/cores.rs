//! Which cores the process may use: its affinity mask, as the kernel tells it in text.

use std::fs;
use std::io;

/// The numbers of the cores that this process may run on, in order.
pub fn allowed() -> io::Result<Vec<usize>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    list.and_then(parse).ok_or_else(|| io::Error::other("/proc/self/status names no cores"))
}

/// A list such as `0-3,8,10-11`; none if it is anything else, or empty.
fn parse(list: &str) -> Option<Vec<usize>> {
    let mut cores = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cores.extend(first.parse::<usize>().ok()?..=last.parse().ok()?);
    }
    (!cores.is_empty()).then_some(cores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores() {
        assert_eq!(parse("\t0-3,8,10-11\n"), Some(vec![0, 1, 2, 3, 8, 10, 11]));
        assert_eq!(parse("5"), Some(vec![5]));
        for wrong in ["", "a", "1-", "3-1"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn this_process_has_a_core() {
        assert!(!allowed().unwrap().is_empty());
    }
}
