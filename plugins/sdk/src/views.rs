use crate::bitmap::bit;
use crate::{Error, Packed};

/// A column of text, and of JSON values as text.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    offsets: &'a [u32],
    data: &'a str,
}

/// A column of bytes.
#[derive(Clone, Copy, Debug)]
pub struct Binary<'a> {
    offsets: &'a [u32],
    data: &'a [u8],
}

/// A column of booleans.
#[derive(Clone, Copy, Debug)]
pub struct Bits<'a> {
    bytes: &'a [u8],
    len: usize,
}

/// A column in which values may be missing.
#[derive(Clone, Copy, Debug)]
pub struct Nullable<'a, V> {
    /// The values. What stands in the slot of a null means nothing.
    pub values: V,
    valid: Option<&'a [u8]>,
}

impl<'a> Text<'a> {
    pub(crate) fn new(packed: &'a Packed, rows: usize) -> Result<Self, Error> {
        check(packed, rows)?;
        let data = simdutf8::compat::from_utf8(&packed.data)
            .map_err(|error| Error::new(format!("text is not UTF-8: {error}")))?;
        Ok(Text { offsets: &packed.offsets, data })
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The texts of all rows, one after the other; what is before the first and behind the last means nothing.
    pub fn data(&self) -> &'a str {
        self.data
    }

    /// Where in [`Text::data`] each row's text starts, and where the last one ends: one more than there are rows.
    pub fn offsets(&self) -> &'a [u32] {
        self.offsets
    }

    /// The text of a row.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn get(&self, row: usize) -> &'a str {
        &self.data[self.offsets[row] as usize..self.offsets[row + 1] as usize]
    }

    /// The text of each row.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a str> + use<'a> {
        let data = self.data;
        self.offsets.array_windows().map(move |[start, end]| &data[*start as usize..*end as usize])
    }
}

impl<'a> Binary<'a> {
    pub(crate) fn new(packed: &'a Packed, rows: usize) -> Result<Self, Error> {
        check(packed, rows)?;
        Ok(Binary { offsets: &packed.offsets, data: &packed.data })
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of a row.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn get(&self, row: usize) -> &'a [u8] {
        &self.data[self.offsets[row] as usize..self.offsets[row + 1] as usize]
    }

    /// The bytes of each row.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        let data = self.data;
        self.offsets.array_windows().map(move |[start, end]| &data[*start as usize..*end as usize])
    }
}

impl<'a> Bits<'a> {
    pub(crate) fn new(bytes: &'a [u8], rows: usize) -> Result<Self, Error> {
        if bytes.len() == rows.div_ceil(8) {
            Ok(Bits { bytes, len: rows })
        } else {
            Err(Error::new(format!("a bitmap of {} bytes for {rows} rows", bytes.len())))
        }
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of a row; false past the end.
    pub fn get(&self, row: usize) -> bool {
        row < self.len && bit(self.bytes, row)
    }

    /// The value of each row.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = bool> + use<'a> {
        let bytes = self.bytes;
        (0..self.len).map(move |row| bit(bytes, row))
    }

    /// The bitmap, least significant bit first.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

impl<'a, V> Nullable<'a, V> {
    pub(crate) fn new(values: V, valid: Option<&'a [u8]>, rows: usize) -> Result<Self, Error> {
        if let Some(valid) = valid {
            Bits::new(valid, rows)?;
        }
        Ok(Nullable { values, valid })
    }

    /// Whether the row has no value.
    pub fn is_null(&self, row: usize) -> bool {
        self.valid.is_some_and(|valid| !bit(valid, row))
    }

    /// Whether any row may have no value. False: all have one.
    pub fn has_nulls(&self) -> bool {
        self.valid.is_some()
    }
}

impl<'a> Nullable<'a, Text<'a>> {
    /// The text of a row, if it has one.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn get(&self, row: usize) -> Option<&'a str> {
        (!self.is_null(row)).then(|| self.values.get(row))
    }
}

impl<'a> Nullable<'a, Binary<'a>> {
    /// The bytes of a row, if it has a value.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn get(&self, row: usize) -> Option<&'a [u8]> {
        (!self.is_null(row)).then(|| self.values.get(row))
    }
}

impl<'a> Nullable<'a, Bits<'a>> {
    /// The value of a row, if it has one.
    pub fn get(&self, row: usize) -> Option<bool> {
        (!self.is_null(row)).then(|| self.values.get(row))
    }
}

impl<'a, T: Copy> Nullable<'a, &'a [T]> {
    /// The value of a row, if it has one; `None` past the end.
    pub fn get(&self, row: usize) -> Option<T> {
        if self.is_null(row) { None } else { self.values.get(row).copied() }
    }
}

/// That the offsets are as the contract says, so that no `get` can go wrong later.
fn check(packed: &Packed, rows: usize) -> Result<(), Error> {
    let Packed { offsets, data } = packed;
    let ends_inside = offsets.last().is_some_and(|end| *end as usize <= data.len());
    if offsets.len() == rows + 1 && offsets[0] == 0 && offsets.is_sorted() && ends_inside {
        Ok(())
    } else {
        Err(Error::new(format!("packed values whose offsets do not fit {rows} rows")))
    }
}
