//! What a mistyped name may have meant: the known names that are a few keystrokes away.

/// No more are offered: a hint is a line, not a list.
const OFFERED_MAX: usize = 3;
/// What is longer is no mistyped name.
const TEXT_LEN_MAX: usize = 64;

/// The known names nearest to `text`, nearest first; at most three, and none that needs more than a third of the
/// longer name changed (but one keystroke always may).
pub fn nearest<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let text: String = text.to_ascii_lowercase().chars().take(TEXT_LEN_MAX).collect();
    let mut near: Vec<(usize, &str)> = known
        .into_iter()
        .map(|name| (distance(&text, name), name))
        .filter(|&(distance, name)| distance <= (text.len().max(name.len()) / 3).max(1))
        .collect();
    near.sort_by_key(|&(distance, _)| distance);
    near.truncate(OFFERED_MAX);
    near.into_iter().map(|(_, name)| name).collect()
}

/// ` (did you mean ycsb-a, ycsb-b?)`, or nothing if no known name is near.
pub fn did_you_mean<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let near = nearest(text, known);
    if near.is_empty() { String::new() } else { format!(" (did you mean {}?)", near.join(", ")) }
}

/// Keystrokes from one text to the other: insertions, deletions, replacements and swaps of neighbours (Damerau and
/// Levenshtein, with no letter touched twice).
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    // `table[i][j]` is the distance of the first i letters to the first j.
    let mut table = vec![vec![0; right.len() + 1]; left.len() + 1];
    for i in 0..=left.len() {
        for j in 0..=right.len() {
            table[i][j] = match (i, j) {
                (0, _) | (_, 0) => i + j,
                _ => {
                    let replaced = table[i - 1][j - 1] + usize::from(left[i - 1] != right[j - 1]);
                    let nearest = replaced.min(table[i - 1][j] + 1).min(table[i][j - 1] + 1);
                    let swaps = i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1];
                    if swaps { nearest.min(table[i - 2][j - 2] + 1) } else { nearest }
                }
            };
        }
    }
    table[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_keystrokes() {
        for (left, right, keystrokes) in
            [("", "abc", 3), ("abc", "abc", 0), ("kitten", "sitting", 3), ("ab", "ba", 1)]
        {
            assert_eq!(distance(left, right), keystrokes, "{left} {right}");
            assert_eq!(distance(right, left), keystrokes, "{right} {left}");
        }
    }

    #[test]
    fn only_near_names_are_offered() {
        let known = ["ycsb-a", "ycsb-b", "ycsb-c", "ycsb-d", "etc"];
        assert_eq!(nearest("YCSB_A", known), ["ycsb-a", "ycsb-b", "ycsb-c"]);
        assert_eq!(did_you_mean("etcc", known), " (did you mean etc?)");
        assert_eq!(did_you_mean("something", known), "");
        assert_eq!(did_you_mean("", known), "");
    }
}
