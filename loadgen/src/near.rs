//! What a mistyped name may have meant: the known names that are a few keystrokes away.

/// No more are offered: a hint is a line, not a list.
const OFFERED_MAX: usize = 3;

/// The known names nearest to `text`, nearest first; at most three, and none that needs more than a third of the
/// longer name changed (but one keystroke always may).
pub fn nearest<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let text = text.to_ascii_lowercase();
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

/// Keystrokes from one text to the other: insertions, deletions, replacements (Levenshtein).
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (upto, letter) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = upto + 1;
        for place in 0..right.len() {
            let replaced = diagonal + usize::from(right[place] != letter);
            diagonal = row[place + 1];
            row[place + 1] = replaced.min(diagonal + 1).min(row[place] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_keystrokes() {
        for (left, right, keystrokes) in
            [("", "abc", 3), ("abc", "abc", 0), ("kitten", "sitting", 3), ("ab", "ba", 2)]
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
