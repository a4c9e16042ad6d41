//! What the operator says, and who says it, why, since when and until when.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::AdminState;

/// The longest [`AdminReason`], in characters.
const REASON_LIMIT: usize = 200;
/// The shortest and the longest [`Lasting`].
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// An admin state with all that belongs to it; as JSON five fields that start with `admin`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admin {
    /// The state.
    #[serde(rename = "admin")]
    pub state: AdminState,
    /// Why, in the operator's words.
    #[serde(rename = "admin_reason")]
    pub reason: Option<AdminReason>,
    /// When it becomes auto by itself; `None`: never.
    #[serde(rename = "admin_until")]
    pub until: Option<Timestamp>,
    /// Who ordered it; `None`: nobody did, as at the beginning or when its time is over.
    #[serde(rename = "admin_by")]
    pub by: Option<Arc<str>>,
    /// Since when it has been in this state; `None`: from the beginning.
    #[serde(rename = "admin_since")]
    pub since: Option<Timestamp>,
}

impl Admin {
    /// What follows from an order given by `by`.
    #[must_use]
    pub fn ordered(order: &Order, by: &Arc<str>, now: Timestamp) -> Self {
        let until = order.lasting.map(|lasting| lasting.after(now));
        Self {
            state: order.state,
            reason: order.reason.clone(),
            until,
            by: Some(Arc::clone(by)),
            since: Some(now),
        }
    }

    /// Its time is over.
    #[must_use]
    pub fn expired(now: Timestamp) -> Self {
        Self {
            since: Some(now),
            ..Self::default()
        }
    }

    /// Whether its time is over.
    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// What becomes of `before` when this is said; `None`: it says nothing new.
    ///
    /// The last word counts as a whole: its reason, and whether it has an end. Only the
    /// beginning stays when the state does.
    #[must_use]
    pub fn replacing(self, before: &Self) -> Option<Self> {
        if self.state != before.state {
            return Some(self);
        }
        let is_news = self.reason != before.reason || self.until != before.until;
        is_news.then_some(Self {
            since: before.since,
            ..self
        })
    }
}

impl From<AdminState> for Admin {
    /// Nobody's word, for ever.
    fn from(state: AdminState) -> Self {
        Self {
            state,
            ..Self::default()
        }
    }
}

/// What an operator wants of a server or a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Order {
    state: AdminState,
    lasting: Option<Lasting>,
    reason: Option<AdminReason>,
}

/// An order as it comes over the socket.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    state: AdminState,
    #[serde(default)]
    lasting: Option<Lasting>,
    #[serde(default)]
    reason: Option<AdminReason>,
}

impl Order {
    /// An order: what, for how long (`None`: until the next order), and why.
    ///
    /// # Errors
    ///
    /// If `auto` is to have an end.
    pub fn new(
        state: AdminState,
        lasting: Option<Lasting>,
        reason: Option<AdminReason>,
    ) -> Result<Self, EndlessAuto> {
        if state == AdminState::Auto && lasting.is_some() {
            return Err(EndlessAuto);
        }
        Ok(Self {
            state,
            lasting,
            reason,
        })
    }
}

impl TryFrom<Unchecked> for Order {
    type Error = EndlessAuto;

    fn try_from(order: Unchecked) -> Result<Self, Self::Error> {
        Self::new(order.state, order.lasting, order.reason)
    }
}

/// `auto` was to have an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("auto has no end: what is set for a time becomes auto when that is over")]
pub struct EndlessAuto;

/// How long an order lasts: 1 second to 366 days; over the socket in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Lasting(Duration);

impl Lasting {
    fn after(self, now: Timestamp) -> Timestamp {
        let duration = SignedDuration::try_from(self.0).unwrap_or(SignedDuration::MAX);
        now.checked_add(duration).unwrap_or(Timestamp::MAX)
    }
}

impl TryFrom<Duration> for Lasting {
    type Error = BadLasting;

    fn try_from(duration: Duration) -> Result<Self, Self::Error> {
        let fits = (SHORTEST..=LONGEST).contains(&duration);
        fits.then_some(Self(duration)).ok_or(BadLasting)
    }
}

impl TryFrom<u64> for Lasting {
    type Error = BadLasting;

    fn try_from(milliseconds: u64) -> Result<Self, Self::Error> {
        Duration::from_millis(milliseconds).try_into()
    }
}

impl From<Lasting> for u64 {
    fn from(lasting: Lasting) -> Self {
        Self::try_from(lasting.0.as_millis()).unwrap_or(Self::MAX)
    }
}

impl FromStr for Lasting {
    type Err = BadLasting;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let duration = humantime::parse_duration(text).map_err(|_| BadLasting)?;
        duration.try_into()
    }
}

/// No order lasts so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a time from 1s to 366days with a unit, such as 90s, 30m, 2h or \"1day 6h\"")]
pub struct BadLasting;

/// An operator's words: 1 to 200 characters on one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AdminReason(Arc<str>);

impl AdminReason {
    /// The words.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AdminReason {
    type Err = BadReason;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let length = text.chars().count();
        // Line and paragraph separators are no control characters, but would do the same.
        let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
        if text.trim().is_empty() || text.chars().any(breaks) {
            return Err(BadReason::NotOneLine);
        }
        if length > REASON_LIMIT {
            return Err(BadReason::TooLong(length));
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for AdminReason {
    type Error = BadReason;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<AdminReason> for String {
    fn from(reason: AdminReason) -> Self {
        reason.as_str().to_owned()
    }
}

impl fmt::Display for AdminReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The words are no reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadReason {
    /// Empty, or with control characters.
    #[error("expected words on one line, without control characters")]
    NotOneLine,
    /// How many characters.
    #[error("expected at most {REASON_LIMIT} characters, found {0}")]
    TooLong(usize),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn order(state: AdminState, lasting: Option<&str>, reason: Option<&str>) -> Order {
        let lasting = lasting.map(|text| text.parse().unwrap());
        Order::new(state, lasting, reason.map(|text| text.parse().unwrap())).unwrap()
    }

    fn said(state: AdminState, lasting: Option<&str>, reason: Option<&str>, now: i64) -> Admin {
        let by = format!("by{now}").into();
        Admin::ordered(&order(state, lasting, reason), &by, at(now))
    }

    #[test]
    fn an_order_has_its_end_and_its_words() {
        let admin = said(AdminState::Drain, Some("2h"), Some("kernel"), 100);
        assert_eq!(admin.until, Some(at(7300)));
        assert_eq!(admin.since, Some(at(100)));
        assert_eq!(admin.by.as_deref(), Some("by100"));
        for (now, due) in [(100, false), (7299, false), (7300, true), (9999, true)] {
            assert_eq!(admin.is_due(at(now)), due, "{now}");
        }
        assert!(!said(AdminState::Drain, None, None, 0).is_due(Timestamp::MAX));
        assert_eq!(
            (Admin::expired(at(7)).state, Admin::expired(at(7)).by),
            (AdminState::Auto, None)
        );
    }

    #[test]
    fn the_last_word_counts_as_a_whole() {
        use AdminState::{Auto, Drain, Maint};
        // (before, at second 200 somebody says, whether that is news)
        let table = [
            (Admin::default(), (Auto, None, None), false),
            (Admin::default(), (Drain, None, None), true),
            (said(Drain, None, None, 100), (Drain, None, None), false),
            (said(Drain, None, None, 100), (Maint, None, None), true),
            (said(Drain, None, None, 100), (Auto, None, None), true),
            (
                said(Drain, None, Some("a"), 100),
                (Drain, None, Some("a")),
                false,
            ),
            (
                said(Drain, None, Some("a"), 100),
                (Drain, None, Some("b")),
                true,
            ),
            (said(Drain, None, Some("a"), 100), (Drain, None, None), true),
            // An end is taken away, given, or moved.
            (
                said(Drain, Some("1h"), None, 100),
                (Drain, None, None),
                true,
            ),
            (
                said(Drain, None, None, 100),
                (Drain, Some("1h"), None),
                true,
            ),
            (
                said(Drain, Some("1h"), None, 100),
                (Drain, Some("1h"), None),
                true,
            ),
        ];
        for (before, (state, lasting, reason), news) in table {
            let word = said(state, lasting, reason, 200);
            let after = word.clone().replacing(&before);
            assert_eq!(after.is_some(), news, "{before:?} {word:?}");
            let Some(after) = after else { continue };
            let since = if state == before.state {
                before.since
            } else {
                Some(at(200))
            };
            assert_eq!(after, Admin { since, ..word });
        }
    }

    #[test]
    fn auto_has_no_end() {
        let hour = Some("1h".parse().unwrap());
        assert_eq!(Order::new(AdminState::Auto, hour, None), Err(EndlessAuto));
        let json = r#"{"state":"auto","lasting":1000}"#;
        assert!(serde_json::from_str::<Order>(json).is_err());
    }

    #[test]
    fn times_are_bounded() {
        for (text, fits) in [
            ("1s", true),
            ("2h", true),
            ("1day 6h", true),
            ("366days", true),
            ("999ms", false),
            ("0s", false),
            ("367days", false),
            ("2", false),
            ("-2h", false),
            ("soon", false),
            ("", false),
        ] {
            assert_eq!(text.parse::<Lasting>().is_ok(), fits, "{text:?}");
        }
        assert!(Lasting::try_from(u64::MAX).is_err());
    }

    #[test]
    fn reasons_are_one_line() {
        let long = "ä".repeat(REASON_LIMIT);
        for text in ["kernel update", "µ → 漢字", long.as_str()] {
            assert_eq!(text.parse::<AdminReason>().unwrap().as_str(), text);
        }
        for text in ["", " ", "a\nb", "\u{1b}[2J", "a\u{2028}b", "\u{85}"] {
            let error = text.parse::<AdminReason>().unwrap_err();
            assert_eq!(error, BadReason::NotOneLine, "{text:?}");
        }
        let error = (long + "x").parse::<AdminReason>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "expected at most 200 characters, found 201"
        );
    }

    #[test]
    fn json_is_checked() {
        let sent = order(AdminState::Maint, Some("90s"), Some("disk"));
        let json = serde_json::to_string(&sent).unwrap();
        assert_eq!(json, r#"{"state":"maint","lasting":90000,"reason":"disk"}"#);
        assert_eq!(serde_json::from_str::<Order>(&json).unwrap(), sent);
        for json in [
            r#"{"state":"maint","reason":"a\nb"}"#,
            r#"{"state":"maint","lasting":1}"#,
            r#"{"state":"on"}"#,
            r#"{"state":"up","more":1}"#,
            "{}",
        ] {
            assert!(serde_json::from_str::<Order>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn fields_are_called_admin() {
        let admin = said(AdminState::Drain, Some("1h"), Some("kernel"), 0);
        let json = serde_json::to_string(&admin).unwrap();
        assert_eq!(
            json,
            r#"{"admin":"drain","admin_reason":"kernel","admin_until":"1970-01-01T01:00:00Z","admin_by":"by0","admin_since":"1970-01-01T00:00:00Z"}"#
        );
        assert_eq!(serde_json::from_str::<Admin>(&json).unwrap(), admin);
        // As files had it once.
        let old = serde_json::from_str::<Admin>(r#"{"admin":"maint"}"#).unwrap();
        assert_eq!(old, AdminState::Maint.into());
    }
}
