//! Where two texts differ, for people.

/// Lines shown around a difference.
const CONTEXT: usize = 3;
/// Comparing costs the product of the lines that differ; beyond this, they are shown as two blocks.
const MAX_COMPARISONS: usize = 1 << 20;

/// The lines that differ, `-` for those only `old` has and `+` for those only `new` has, among some that do not.
pub(super) fn lines(old: &str, new: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
    let same_start = common(old.iter().zip(&new));
    let same_end = common(old[same_start..].iter().rev().zip(new[same_start..].iter().rev()));
    let (old_part, new_part) =
        (&old[same_start..old.len() - same_end], &new[same_start..new.len() - same_end]);

    let before = &old[same_start.saturating_sub(CONTEXT)..same_start];
    let end = old.len() - same_end;
    let after = &old[end..old.len().min(end + CONTEXT)];
    let kept = |lines: &[&str]| lines.iter().map(|line| format!("    {line}")).collect::<Vec<_>>();
    [kept(before), changes(old_part, new_part), kept(after)].concat().join("\n")
}

fn common<'a>(pairs: impl Iterator<Item = (&'a &'a str, &'a &'a str)>) -> usize {
    pairs.take_while(|(old, new)| old == new).count()
}

fn changes(old: &[&str], new: &[&str]) -> Vec<String> {
    let removed = |line: &&str| format!("  - {line}");
    let added = |line: &&str| format!("  + {line}");
    if old.len().saturating_mul(new.len()) > MAX_COMPARISONS {
        return old.iter().map(removed).chain(new.iter().map(added)).collect();
    }
    let longest = longest_common(old, new);
    let (mut row, mut column, mut shown) = (0, 0, Vec::new());
    while row < old.len() || column < new.len() {
        if row < old.len() && column < new.len() && old[row] == new[column] {
            shown.push(format!("    {}", old[row]));
            (row, column) = (row + 1, column + 1);
        } else if column == new.len()
            || (row < old.len() && longest[row + 1][column] >= longest[row][column + 1])
        {
            shown.push(removed(&old[row]));
            row += 1;
        } else {
            shown.push(added(&new[column]));
            column += 1;
        }
    }
    shown
}

/// How many lines `old[row..]` and `new[column..]` have in common, in order: the textbook table, filled from its end.
fn longest_common(old: &[&str], new: &[&str]) -> Vec<Vec<usize>> {
    let mut longest = vec![vec![0; new.len() + 1]; old.len() + 1];
    for row in (0..old.len()).rev() {
        for column in (0..new.len()).rev() {
            longest[row][column] = match old[row] == new[column] {
                true => longest[row + 1][column + 1] + 1,
                false => longest[row + 1][column].max(longest[row][column + 1]),
            };
        }
    }
    longest
}

/// Bytes as hexadecimal digits and as text.
pub(super) fn hex_dump(bytes: &[u8]) -> String {
    let lines = bytes.chunks(16).map(|line| {
        let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let text: String =
            line.iter().map(|&byte| if (b' '..=b'~').contains(&byte) { byte as char } else { '.' }).collect();
        format!("    {:<47}  {text}\n", hex.join(" "))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_marked() {
        let old = "a\nb\nc\nd\ne\nf\ng\nh\ni\n";
        let new = "a\nb\nc\nd\nE\nf\ng+\ng\ni\n";
        let shown = "    b\n    c\n    d\n  - e\n  + E\n    f\n  + g+\n    g\n  - h\n    i";
        assert_eq!(lines(old, new), shown);
        assert_eq!(lines("", "a"), "  + a");
        assert_eq!(lines("a\nb", "a"), "    a\n  - b");
    }

    #[test]
    fn texts_that_are_long_and_wholly_different_are_two_blocks() {
        let block = |letter: &str| vec![letter; 2_000].join("\n");
        let shown = lines(&block("a"), &block("b"));
        assert_eq!(shown.lines().take_while(|line| *line == "  - a").count(), 2_000);
        assert_eq!(shown.lines().filter(|line| *line == "  + b").count(), 2_000);
    }
}
