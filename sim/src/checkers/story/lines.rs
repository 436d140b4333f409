//! One operation, one line: when, who, what, and how it ended.

use std::collections::BTreeMap;
use std::fmt::Write;

use ringmain::causality::{Actor, VersionVector};
use ringmain::time::Instant;

use crate::checkers::dot_set::DotSet;
use crate::checkers::graph::Graph;
use crate::history::{Call, History, Number, Operation, Outcome, Reading, Sent, read_value};

/// The most operations that are listed on a line.
const LISTED_MAX: usize = 6;
const COLUMNS: usize = 6;

/// Writes the operations of one key.
pub(super) struct Lines<'a> {
    history: &'a History,
    graph: &'a Graph<'a>,
    /// `n2b` is the second actor of node 2.
    actors: BTreeMap<Actor, String>,
}

impl<'a> Lines<'a> {
    /// Of this key.
    pub(super) fn new(history: &'a History, graph: &'a Graph<'a>) -> Self {
        let mut order: Vec<usize> = (0..graph.len()).collect();
        order.sort_by_key(|at| graph.minted(*at).at);
        let mut actors = BTreeMap::new();
        let mut of_node: BTreeMap<usize, usize> = BTreeMap::new();
        for at in order {
            let node = graph.minted(at).node;
            actors.entry(graph.dot(at).actor).or_insert_with(|| {
                let count = of_node.entry(node).or_default();
                *count += 1;
                format!("n{node}{}", letters(*count))
            });
        }
        Self { history, graph, actors }
    }

    /// These operations, one on a line, the named ones with a star.
    pub(super) fn table(&self, operations: &[Number], named: &[Number]) -> String {
        let heading = ["", "invoked", "returned", "", "", ""].map(str::to_owned);
        let rows = operations.iter().map(|number| self.row(*number, named.contains(number)));
        let rows: Vec<[String; COLUMNS]> = std::iter::once(heading).chain(rows).collect();
        let mut widths = [0; COLUMNS];
        for row in &rows {
            widths.iter_mut().zip(row).for_each(|(width, cell)| *width = cell.len().max(*width));
        }
        let mut table = String::new();
        for [number, invoked, returned, client, call, outcome] in &rows {
            let [a, b, c, d, e, _] = widths;
            let line =
                format!("{number:a$} {invoked:>b$}  {returned:>c$}  {client:d$}  {call:e$}  {outcome}");
            table += line.trim_end();
            table.push('\n');
        }
        table
    }

    fn row(&self, number: Number, is_named: bool) -> [String; COLUMNS] {
        let operation = self.history.get(number);
        let star = if is_named { '*' } else { ' ' };
        let returned = operation.returned.map_or_else(|| "never".to_owned(), time);
        [
            format!("{star} #{}", number.0),
            time(operation.invoked),
            returned,
            format!("client {}", operation.client),
            self.call(number, operation),
            self.outcome(number, operation),
        ]
    }

    fn call(&self, number: Number, operation: &Operation) -> String {
        let mut call = match &operation.call {
            Call::Get { read, latest: false } => format!("get, R = {read}"),
            Call::Get { read, latest: true } => format!("get latest, R = {read}"),
            Call::Delete { sent, write } => format!("delete, W = {write}, {}", self.sent(number, sent)),
            Call::Put { value, sent, write, time_to_live } => {
                let expires =
                    time_to_live.map_or_else(String::new, |span| format!(", for {} ms", span.as_millis()));
                format!("put {} bytes{expires}, W = {write}, {}", value.len(), self.sent(number, sent))
            }
        };
        if operation.attempts > 1 {
            let _ = write!(call, ", {} attempts", operation.attempts);
        }
        call
    }

    fn sent(&self, number: Number, sent: &Sent) -> String {
        match sent {
            Sent::Context(context) => format!("in place of {}", self.latest_of(context)),
            Sent::Overwrite => {
                let mut found = self.graph.nothing();
                self.graph.of_operation(number).for_each(|at| found.add(self.graph.replaced(at)));
                format!("overwriting {}", self.list(&self.not_replaced(&found)))
            }
        }
    }

    fn outcome(&self, number: Number, operation: &Operation) -> String {
        let dots: Vec<String> = self
            .graph
            .of_operation(number)
            .map(|at| self.graph.dot(at))
            .map(|dot| format!("{}:{}", self.actors[&dot.actor], dot.counter))
            .collect();
        let applied = if dots.is_empty() {
            ", never applied".to_owned()
        } else {
            format!(", applied as {}", dots.join(" and "))
        };
        match &operation.outcome {
            Outcome::Got(reading) => self.reading(reading),
            Outcome::Stored if dots.is_empty() => "stored, and never applied".to_owned(),
            Outcome::Stored => format!("stored as {}", dots.join(" and ")),
            Outcome::Failed(code) if dots.is_empty() => format!("failed: {code:?}"),
            Outcome::Failed(code) => format!("failed: {code:?}{applied}"),
            Outcome::Unknown if operation.is_write() => format!("unknown{applied}"),
            Outcome::Unknown => "unknown".to_owned(),
        }
    }

    /// What was returned; and what the context speaks of, if that is something else.
    fn reading(&self, reading: &Reading) -> String {
        let of_value = |value: &Vec<u8>| {
            read_value(value).map_or_else(|| "a phantom".to_owned(), |(number, ..)| format!("#{}", number.0))
        };
        let values: Vec<String> = reading.values.iter().map(of_value).collect();
        let values = shortened(values);
        match &reading.context {
            None => format!("got {values}, without a context"),
            Some(context) => {
                let covered = self.latest_of(context);
                if covered == values {
                    format!("got {values}")
                } else {
                    format!("got {values}, with a context of {covered}")
                }
            }
        }
    }

    /// What a context covers and doesn't know to be replaced.
    fn latest_of(&self, context: &VersionVector) -> String {
        self.list(&self.not_replaced(&self.graph.covered_by(context)))
    }

    fn not_replaced(&self, dots: &DotSet) -> DotSet {
        let mut latest = dots.clone();
        dots.iter().for_each(|at| latest.subtract(self.graph.replaced(at)));
        latest
    }

    fn list(&self, dots: &DotSet) -> String {
        let mut operations: Vec<Number> = dots.iter().map(|at| self.graph.operation(at)).collect();
        operations.sort_unstable();
        operations.dedup();
        shortened(operations.iter().map(|number| format!("#{}", number.0)).collect())
    }
}

/// A few names, and how many more there are.
fn shortened(mut names: Vec<String>) -> String {
    if names.is_empty() {
        return "nothing".to_owned();
    }
    let left_out = names.len().saturating_sub(LISTED_MAX);
    names.truncate(LISTED_MAX);
    if left_out > 0 {
        names.push(format!("and {left_out} more"));
    }
    names.join(" ")
}

/// Seconds and milliseconds since the run began.
fn time(at: Instant) -> String {
    let millis = at.0 / 1_000_000;
    format!("{}.{:03}", millis / 1000, millis % 1000)
}

/// `a` for 1, `z` for 26, `aa` for 27.
fn letters(mut count: usize) -> String {
    let mut letters = Vec::new();
    while count > 0 {
        count -= 1;
        letters.push(char::from(b'a' + (count % 26) as u8));
        count /= 26;
    }
    letters.iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::sample::{KEY, Sample, vector};
    use ringmain_schema::message::ErrorCode;

    #[test]
    fn a_line_says_how_it_ended() {
        let mut sample = Sample::new();
        let milk = sample.expiring(&[], (1, 1));
        sample.mint(milk, (4, 1), &[]);
        let delete = sample.operation(Call::Delete { sent: Sent::Overwrite, write: 3 }, Outcome::Stored);
        sample.mint(delete, (2, 1), &[(1, 1)]);
        let failed = sample.put(&[], Outcome::Failed(ErrorCode::Unavailable));
        let vanished = sample.put(&[], Outcome::Unknown);
        sample.history.get_mut(vanished).returned = None;
        sample.history.get_mut(vanished).attempts = 3;
        let read = sample.got(&[milk, milk], &[(1, 1)]);
        sample.reading(read).context = None;
        sample.reading(read).values[1].pop();
        let operations: Vec<Number> = sample.history.iter().map(|(number, _)| number).collect();
        let graph = Graph::of(&sample.dots, KEY);
        let table = Lines::new(&sample.history, &graph).table(&operations, &[failed]);
        let expected = "     invoked  returned
  #0   0.000     0.001  client 1  put 17 bytes, for 1000 ms, W = 2, in place of nothing  stored as n1a:1 and n1b:1
  #1   0.002     0.003  client 1  delete, W = 3, overwriting #0                          stored as n2a:1
* #2   0.004     0.005  client 1  put 17 bytes, W = 2, in place of nothing               failed: Unavailable
  #3   0.006     never  client 1  put 17 bytes, W = 2, in place of nothing, 3 attempts   unknown, never applied
  #4   0.008     0.009  client 1  get, R = 2                                             got #0 a phantom, without a context
";
        assert_eq!(table, expected, "\n{table}");
        assert_eq!(Lines::new(&sample.history, &graph).latest_of(&vector(&[(1, 1), (4, 1)])), "#0");
    }

    #[test]
    fn many_names_are_counted() {
        assert_eq!(shortened(vec![]), "nothing");
        assert_eq!(shortened((1..=8).map(|n| n.to_string()).collect()), "1 2 3 4 5 6 and 2 more");
        assert_eq!(
            [1, 26, 27, 28, 52, 53, 702, 703].map(letters),
            ["a", "z", "aa", "ab", "az", "ba", "zz", "aaa"]
        );
    }
}
