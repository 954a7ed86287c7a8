use crate::{Error, Failure};

/// The rows of the batch at hand: how many there are, and which of them fail.
#[derive(Debug)]
pub struct Rows {
    len: usize,
    failed: Vec<Failure>,
    batch: Option<Error>,
}

impl Rows {
    /// So many rows, none of which has failed.
    pub fn new(len: u32) -> Self {
        Rows { len: len as usize, failed: Vec::new(), batch: None }
    }

    /// How many rows the batch has.
    #[expect(clippy::len_without_is_empty, reason = "a count, not a container")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// This row could not be handled: it goes to the dead letters with the message, and the others go on. Only the first
    /// message for a row counts; a row that does not exist is ignored.
    pub fn fail(&mut self, row: usize, message: impl Into<String>) {
        if row < self.len {
            self.failed.push(Failure { row: row as u32, message: message.into() });
        }
    }

    /// The batch as a whole could not be handled. For single rows use [`Rows::fail`].
    pub fn fail_batch(&mut self, message: impl Into<String>) {
        self.batch.get_or_insert_with(|| Error::new(message));
    }

    /// The failed rows in order, each once.
    ///
    /// # Errors
    /// The batch failed as a whole.
    pub fn finish(self) -> Result<Vec<Failure>, Error> {
        if let Some(error) = self.batch {
            return Err(error);
        }
        let mut failed = self.failed;
        failed.sort_by_key(|failure| failure.row); // stable: the first message stays first
        failed.dedup_by_key(|failure| failure.row);
        Ok(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_fails_once_and_in_order() {
        let mut rows = Rows::new(3);
        rows.fail(2, "late");
        rows.fail(0, "first");
        rows.fail(2, "again");
        rows.fail(3, "no such row");
        let failed = rows.finish().unwrap();
        let failed: Vec<_> = failed.iter().map(|failure| (failure.row, failure.message.as_str())).collect();
        assert_eq!(failed, [(0, "first"), (2, "late")]);
    }

    #[test]
    fn a_batch_fails_with_its_first_message() {
        let mut rows = Rows::new(1);
        rows.fail_batch("one");
        rows.fail_batch("two");
        assert_eq!(rows.finish(), Err("one".into()));
    }
}
