//! How many calls may be sent again, so that a cluster in trouble does not get twice its load.

/// One call of this many may be sent again.
const SHARE: u32 = 5;
/// So many may be at once: as many as can be in flight when a member dies.
const MOST: u32 = 8 * 1024;

/// A budget that grows with each call, and shrinks with each one that is sent again.
#[derive(Debug)]
pub(super) struct Budget {
    /// In parts of a repeat.
    left: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Self { left: MOST * SHARE }
    }
}

impl Budget {
    /// A call is sent for the first time.
    pub(super) fn earn(&mut self) {
        self.left = (self.left + 1).min(MOST * SHARE);
    }

    /// Returns whether a call may be sent again, and counts that.
    pub(super) fn spend(&mut self) -> bool {
        let left = self.left.checked_sub(SHARE);
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_call_of_five_may_be_sent_again() {
        let mut budget = Budget::default();
        let spent = std::iter::repeat_with(|| budget.spend()).take_while(|spent| *spent).count();
        assert_eq!(spent, MOST as usize);
        let repeats = (0..1000).filter(|_| {
            budget.earn();
            budget.spend()
        });
        assert_eq!(repeats.count(), 200);
    }
}
