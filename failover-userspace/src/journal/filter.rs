//! Which entries somebody wants to see.

use glob::{Pattern, PatternError};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Entry, Kind};

/// Which entries are asked for; by default all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Not older than this.
    pub since: Option<Timestamp>,
    /// About this service or one of its servers.
    pub service: Option<String>,
    /// About subjects of this pattern: `*` any characters, `?` any one, `[ab]` one of these.
    pub subject: Option<String>,
}

/// A [`Filter`] that is ready for use.
#[derive(Clone, Debug)]
pub struct Matcher {
    since: Option<Timestamp>,
    service: Option<String>,
    subject: Option<Pattern>,
}

impl Filter {
    /// Makes it ready.
    ///
    /// # Errors
    ///
    /// If `subject` is no pattern.
    pub fn matcher(&self) -> Result<Matcher, PatternError> {
        Ok(Matcher {
            since: self.since,
            service: self.service.clone(),
            subject: self.subject.as_deref().map(Pattern::new).transpose()?,
        })
    }
}

impl Matcher {
    /// Whether the entry is one of those asked for. What is lost might have been one.
    #[must_use]
    pub fn matches(&self, entry: &Entry) -> bool {
        let news = &entry.news;
        let about = |service: &String| news.service() == Some(service);
        let called = |subject: &Pattern| subject.matches(&news.subject);
        self.since.is_none_or(|since| entry.time >= since)
            && (news.kind == Kind::Lost
                || (self.service.as_ref().is_none_or(about)
                    && self.subject.as_ref().is_none_or(called)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{News, Severity};

    const SUBJECTS: [(Kind, &str); 7] = [
        (Kind::Daemon, "daemon"),
        (Kind::Server, "www/web-a"),
        (Kind::Server, "www/web-b"),
        (Kind::Server, "wwwx/web-a"),
        (Kind::Service, "service/www"),
        (Kind::Admin, "www/web-a"),
        (Kind::Wan, "wan/wan1"),
    ];

    /// The numbers of the entries that are left.
    fn left(filter: &Filter) -> Vec<u64> {
        let matcher = filter.matcher().unwrap();
        let entries = SUBJECTS
            .iter()
            .zip(0_u32..)
            .map(|((kind, subject), seq)| Entry {
                seq: seq.into(),
                time: Timestamp::from_second(i64::from(seq)).unwrap(),
                news: News::new(*kind, *subject, Severity::Info),
            });
        let left = entries.filter(|entry| matcher.matches(entry));
        left.map(|entry| entry.seq).collect()
    }

    #[test]
    fn filters() {
        let service = |service: &str| Filter {
            service: Some(service.to_owned()),
            ..Filter::default()
        };
        let subject = |subject: &str| Filter {
            subject: Some(subject.to_owned()),
            ..Filter::default()
        };
        let since = |second| Filter {
            since: Some(Timestamp::from_second(second).unwrap()),
            ..Filter::default()
        };
        for (filter, want) in [
            (Filter::default(), &[0, 1, 2, 3, 4, 5, 6][..]),
            (service("www"), &[1, 2, 4, 5]),
            (service("wan"), &[]),
            (service("w*"), &[]),
            (subject("www/*"), &[1, 2, 5]),
            (subject("*web-a"), &[1, 3, 5]),
            (subject("wan/*"), &[6]),
            (subject("www/web-[ab]"), &[1, 2, 5]),
            (subject("daemo?"), &[0]),
            (subject("web"), &[]),
            (since(5), &[5, 6]),
            (since(7), &[]),
        ] {
            assert_eq!(left(&filter), want, "{filter:?}");
        }
        let error = subject("a[b").matcher().unwrap_err();
        assert!(error.to_string().contains("position"), "{error}");
    }

    #[test]
    fn what_is_lost_concerns_everybody() {
        let lost = Entry {
            seq: 1,
            time: Timestamp::UNIX_EPOCH,
            news: News::new(Kind::Lost, "journal", Severity::Warning),
        };
        let filter = Filter {
            service: Some("www".to_owned()),
            subject: Some("www/*".to_owned()),
            since: None,
        };
        assert!(filter.matcher().unwrap().matches(&lost));
    }
}
