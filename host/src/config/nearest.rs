//! The nearest right name.

use strsim::damerau_levenshtein;

/// The candidate that `name` was most likely meant to be; `None` if none is near.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_lowercase().replace(['_', ' ', '.'], "-");
    let wanted = plain(name);
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let known = plain(candidate);
            let distance = damerau_levenshtein(&wanted, &known);
            // One letter in three may be wrong; a beginning of three letters or more counts as near as well.
            let limit = wanted.chars().count().max(known.chars().count()).div_ceil(3);
            let begins =
                wanted.len() >= 3 && known.len() >= 3 && (known.starts_with(&wanted) || wanted.starts_with(&known));
            (distance <= limit || begins).then_some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// ``did you mean `x`?``
pub(super) fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(name, candidates).map(|near| format!("did you mean `{near}`?"))
}

/// `` `a`, `b`, `c` ``
pub(super) fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_slip_and_not_the_stranger() {
        let keys = ["rows_per_second", "rows", "path", "format"];
        assert_eq!(nearest("row_per_secnd", keys), Some("rows_per_second"));
        assert_eq!(nearest("rows-per-second", keys), Some("rows_per_second"));
        assert_eq!(nearest("paht", keys), Some("path"));
        assert_eq!(nearest("filename", keys), None);
        assert_eq!(nearest("Format", keys), Some("format"));
        assert_eq!(nearest("rate", ["console", "blackhole", "file"]), None);
        assert_eq!(nearest("", keys), None);
    }
}
