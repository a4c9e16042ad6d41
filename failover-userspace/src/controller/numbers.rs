//! What the probe engine calls the probes of the model.

use std::collections::HashMap;

use crate::model::ProbeId;
use crate::probe::ProbeKey;

/// Keys of the model's probes, and back. A key is never given away twice, so that a report
/// that was on its way during a reload is of the right probe, or of none.
#[derive(Debug)]
pub(super) struct Numbers {
    keys: Vec<ProbeKey>,
    ids: HashMap<ProbeKey, ProbeId>,
    next: u32,
}

impl Numbers {
    /// As the engine starts: the keys of this many probes are their ids.
    pub(super) fn new(probes: usize) -> Self {
        let keys: Vec<_> = (0..).map(ProbeKey).take(probes).collect();
        Self {
            next: keys.last().map_or(0, |last| last.0 + 1),
            ids: ids(&keys),
            keys,
        }
    }

    pub(super) fn key(&self, probe: ProbeId) -> ProbeKey {
        self.keys[probe.index()]
    }

    /// `None`: it is no probe of the model.
    pub(super) fn id(&self, key: ProbeKey) -> Option<ProbeId> {
        self.ids.get(&key).copied()
    }

    /// A key that was never used.
    pub(super) fn fresh(&mut self) -> ProbeKey {
        let key = ProbeKey(self.next);
        self.next += 1;
        key
    }

    /// From now on these are the keys, by the ids of another model. Returns those that are not
    /// in use any more.
    pub(super) fn replace(&mut self, keys: Vec<ProbeKey>) -> Vec<ProbeKey> {
        let before = std::mem::replace(&mut self.ids, ids(&keys));
        self.keys = keys;
        let mut gone: Vec<_> = before.into_keys().collect();
        gone.retain(|key| !self.ids.contains_key(key));
        gone.sort_unstable();
        gone
    }
}

fn ids(keys: &[ProbeKey]) -> HashMap<ProbeKey, ProbeId> {
    keys.iter().copied().zip((0..).map(ProbeId)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_outlive_models() {
        let key = ProbeKey;
        let mut numbers = Numbers::new(3);
        assert_eq!(
            (numbers.key(ProbeId(2)), numbers.id(key(1))),
            (key(2), Some(ProbeId(1)))
        );
        let fresh = numbers.fresh();
        assert_eq!((fresh, numbers.id(fresh)), (key(3), None));
        // The second probe is gone, and the others have changed places with a new one between.
        assert_eq!(numbers.replace(vec![key(2), fresh, key(0)]), [key(1)]);
        assert_eq!(numbers.key(ProbeId(1)), fresh);
        for (key, want) in [
            (key(0), Some(2)),
            (key(1), None),
            (key(2), Some(0)),
            (fresh, Some(1)),
        ] {
            assert_eq!(numbers.id(key), want.map(ProbeId));
        }
        assert_eq!(numbers.fresh(), key(4));
        assert_eq!(Numbers::new(0).fresh(), key(0));
    }
}
