use crate::views::{Binary, Bits, Nullable, Text};
use crate::{Bitmap, Column, ColumnType, Error, Field, Input, Packed, Values};

/// The type of a column, named by the Rust type of its values: `i64`, `f64`, `bool`, [`Timestamp`], `String` (text),
/// `Vec<u8>` (binary), [`Json`], and `Option` of each where values may be missing.
pub trait Type {
    /// The contract's name of it.
    const KIND: ColumnType;
    /// Whether values may be missing.
    const NULLABLE: bool = false;
    /// A column that is read: slices for numbers, [`Text`], [`Binary`], [`Bits`]; [`Nullable`] of one with `Option`.
    type View<'a>;
    /// A column that is made: vectors for numbers, [`Packed`] for text, JSON and bytes, [`Bitmap`]; with `Option`, a pair of
    /// it and a bitmap whose bit is 0 where the value is missing.
    type Built;

    /// A column of the batch, typed.
    ///
    /// # Errors
    /// It is of another type, or not laid out as the contract says.
    fn view<'a>(values: &'a Values, valid: Option<&'a [u8]>, rows: usize) -> Result<Self::View<'a>, Error>;

    /// A made column in the contract's layout.
    fn build(built: Self::Built) -> (Values, Option<Vec<u8>>);
}

/// Microseconds since 1970-01-01T00:00:00Z, UTC, as `i64`.
pub enum Timestamp {}

/// A JSON value, as text.
pub enum Json {}

macro_rules! types {
    ($($type:ty, $kind:ident, $view:ty, $built:ty, |$values:ident, $rows:ident| $read:expr, |$done:ident| $write:expr;)*) => {$(
        impl Type for $type {
            const KIND: ColumnType = ColumnType::$kind;
            type View<'a> = $view;
            type Built = $built;

            fn view<'a>(values: &'a Values, _: Option<&'a [u8]>, $rows: usize) -> Result<Self::View<'a>, Error> {
                match values {
                    Values::$kind($values) => $read,
                    other => Err(mismatch(other.kind(), ColumnType::$kind)),
                }
            }

            fn build($done: Self::Built) -> (Values, Option<Vec<u8>>) {
                (Values::$kind($write), None)
            }
        }
    )*};
}

types! {
    bool, Boolean, Bits<'a>, Bitmap, |values, rows| Bits::new(values, rows), |built| built.into_bytes();
    i64, Int64, &'a [i64], Vec<i64>, |values, rows| slice(values, rows), |built| built;
    f64, Float64, &'a [f64], Vec<f64>, |values, rows| slice(values, rows), |built| built;
    Timestamp, Timestamp, &'a [i64], Vec<i64>, |values, rows| slice(values, rows), |built| built;
    String, Text, Text<'a>, Packed, |values, rows| Text::new(values, rows), |built| built;
    Vec<u8>, Binary, Binary<'a>, Packed, |values, rows| Binary::new(values, rows), |built| built;
    Json, Json, Text<'a>, Packed, |values, rows| Text::new(values, rows), |built| built;
}

impl<T: Type> Type for Option<T> {
    const KIND: ColumnType = T::KIND;
    const NULLABLE: bool = true;
    type View<'a> = Nullable<'a, T::View<'a>>;
    type Built = (T::Built, Bitmap);

    fn view<'a>(values: &'a Values, valid: Option<&'a [u8]>, rows: usize) -> Result<Self::View<'a>, Error> {
        Nullable::new(T::view(values, None, rows)?, valid, rows)
    }

    fn build((built, valid): Self::Built) -> (Values, Option<Vec<u8>>) {
        let nulls = valid.count() < valid.len();
        (T::build(built).0, nulls.then(|| valid.into_bytes()))
    }
}

fn slice<T>(values: &[T], rows: usize) -> Result<&[T], Error> {
    if values.len() == rows {
        Ok(values)
    } else {
        Err(Error::new(format!("a column of {} values for {rows} rows", values.len())))
    }
}

fn mismatch(is: ColumnType, wanted: ColumnType) -> Error {
    Error::new(format!("a column of type {} where the plan says {}", is.name(), wanted.name()))
}

/// The columns that a plugin reads, or those that it adds: nothing `()`, one [`Type`], or a tuple of up to six.
pub trait Columns {
    /// A name for each.
    type Names: IntoIterator<Item = String>;
    /// What is read, typed.
    type Views<'a>;
    /// What was made.
    type Built;

    /// As inputs of a plan.
    fn inputs(names: Self::Names) -> Vec<Input>;

    /// As added fields of a plan.
    fn fields(names: Self::Names) -> Vec<Field>;

    /// The columns of a batch, typed.
    ///
    /// # Errors
    /// The batch does not have the columns of the plan.
    fn views(columns: &[Column], rows: usize) -> Result<Self::Views<'_>, Error>;

    /// The made columns in the contract's layout, under the names of the plan's fields.
    fn build(fields: &[Field], built: Self::Built) -> Vec<Column>;
}

/// The names of columns: `[String; 1]` for one column, `[String; N]` for a tuple of N.
pub type Names<C> = <C as Columns>::Names;
/// Columns to read, as [`Type::View`] says: one, or a tuple.
pub type Views<'a, C> = <C as Columns>::Views<'a>;
/// Made columns, as [`Type::Built`] says: one, or a tuple.
pub type BuiltColumns<C> = <C as Columns>::Built;
/// One column to read.
pub type View<'a, T> = <T as Type>::View<'a>;
/// One made column.
pub type Built<T> = <T as Type>::Built;

impl<T: Type> Columns for T {
    type Names = [String; 1];
    type Views<'a> = T::View<'a>;
    type Built = T::Built;

    fn inputs([name]: Self::Names) -> Vec<Input> {
        vec![input::<T>(name)]
    }

    fn fields([name]: Self::Names) -> Vec<Field> {
        vec![field::<T>(name)]
    }

    fn views(columns: &[Column], rows: usize) -> Result<Self::Views<'_>, Error> {
        view::<T>(columns, 0, rows)
    }

    fn build(fields: &[Field], built: Self::Built) -> Vec<Column> {
        vec![column::<T>(fields, 0, built)]
    }
}

macro_rules! tuples {
    ($($count:literal: $($type:ident $place:tt),*;)*) => {$(
        impl<$($type: Type),*> Columns for ($($type,)*) {
            type Names = [String; $count];
            type Views<'a> = ($($type::View<'a>,)*);
            type Built = ($($type::Built,)*);

            fn inputs(names: Self::Names) -> Vec<Input> {
                let makers: [fn(String) -> Input; $count] = [$(input::<$type>),*];
                makers.into_iter().zip(names).map(|(make, name)| make(name)).collect()
            }

            fn fields(names: Self::Names) -> Vec<Field> {
                let makers: [fn(String) -> Field; $count] = [$(field::<$type>),*];
                makers.into_iter().zip(names).map(|(make, name)| make(name)).collect()
            }

            #[allow(unused_variables, reason = "for the empty tuple")]
            fn views(columns: &[Column], rows: usize) -> Result<Self::Views<'_>, Error> {
                Ok(($(view::<$type>(columns, $place, rows)?,)*))
            }

            #[allow(unused_variables, reason = "for the empty tuple")]
            fn build(fields: &[Field], built: Self::Built) -> Vec<Column> {
                vec![$(column::<$type>(fields, $place, built.$place)),*]
            }
        }
    )*};
}

tuples! {
    0: ;
    1: A 0;
    2: A 0, B 1;
    3: A 0, B 1, C 2;
    4: A 0, B 1, C 2, D 3;
    5: A 0, B 1, C 2, D 3, E 4;
    6: A 0, B 1, C 2, D 3, E 4, F 5;
}

fn input<T: Type>(name: String) -> Input {
    Input { name, kind: T::KIND, nullable: T::NULLABLE }
}

fn field<T: Type>(name: String) -> Field {
    Field { name, kind: T::KIND, nullable: T::NULLABLE }
}

fn view<T: Type>(columns: &[Column], place: usize, rows: usize) -> Result<T::View<'_>, Error> {
    let Some(column) = columns.get(place) else {
        return Err(Error::new(format!("a batch of {} columns where the plan reads more", columns.len())));
    };
    if !T::NULLABLE && column.valid.is_some() {
        return Err(Error::new(format!("column `{}` has nulls, which the plan refuses", column.name)));
    }
    T::view(&column.values, column.valid.as_deref(), rows)
        .map_err(|error| Error::new(format!("column `{}`: {error}", column.name)))
}

fn column<T: Type>(fields: &[Field], place: usize, built: T::Built) -> Column {
    let (values, valid) = T::build(built);
    Column { name: fields.get(place).map(|field| field.name.clone()).unwrap_or_default(), values, valid }
}
