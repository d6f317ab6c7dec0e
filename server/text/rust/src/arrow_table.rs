//! A table in one of Arrow's IPC formats, written batch by batch and taken away as it is written.
//! The crate checks every array against its type (lengths, offsets, UTF-8) before it is written.

use std::sync::Arc;

use arrow_array::{make_array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer};
use arrow_data::{ArrayData, ArrayDataBuilder};
use arrow_ipc::writer::{FileWriter, StreamWriter};
use arrow_schema::{ArrowError, DataType, Field, Schema};

use crate::{Failure, FailureKind};

/// Types of columns; the numbers are those of VsColumnType.
#[derive(Clone, Copy)]
pub enum ColumnType {
    Boolean,
    Int32,
    Int64,
    UInt32,
    UInt64,
    Float32,
    Float64,
    Utf8,
    List,
    Struct,
}

const TYPES: [ColumnType; 10] = [
    ColumnType::Boolean,
    ColumnType::Int32,
    ColumnType::Int64,
    ColumnType::UInt32,
    ColumnType::UInt64,
    ColumnType::Float32,
    ColumnType::Float64,
    ColumnType::Utf8,
    ColumnType::List,
    ColumnType::Struct,
];

impl ColumnType {
    pub fn of_number(number: i32) -> Result<ColumnType, Failure> {
        let found = usize::try_from(number).ok().and_then(|number| TYPES.get(number));
        found.copied().ok_or_else(|| Failure::new(FailureKind::BadArguments, "no type of a column"))
    }
}

/// A column and, in what it borrows, some of its rows.
pub struct Column<'a> {
    pub name: &'a str,
    pub column_type: ColumnType,
    pub nullable: bool,
    pub length: usize,
    /// A byte a value, 0 where it is null; empty where none is.
    pub valid: &'a [u8],
    /// Of texts and lists: int32, length + 1.
    pub offsets: &'a [u8],
    /// Values in the machine's order; a byte a boolean; all texts one after another.
    pub values: &'a [u8],
    /// Of a list its items, of a struct its members.
    pub children: Vec<Column<'a>>,
}

impl Column<'_> {
    fn data_type(&self) -> DataType {
        match self.column_type {
            ColumnType::Boolean => DataType::Boolean,
            ColumnType::Int32 => DataType::Int32,
            ColumnType::Int64 => DataType::Int64,
            ColumnType::UInt32 => DataType::UInt32,
            ColumnType::UInt64 => DataType::UInt64,
            ColumnType::Float32 => DataType::Float32,
            ColumnType::Float64 => DataType::Float64,
            ColumnType::Utf8 => DataType::Utf8,
            ColumnType::List => DataType::List(Arc::new(self.children[0].field())),
            ColumnType::Struct => {
                DataType::Struct(self.children.iter().map(Column::field).collect())
            }
        }
    }

    fn field(&self) -> Field {
        Field::new(self.name, self.data_type(), self.nullable)
    }

    fn nulls(&self) -> Option<NullBuffer> {
        if self.valid.is_empty() {
            return None;
        }
        let nulls: NullBuffer = self.valid.iter().map(|valid| *valid != 0).collect();
        (nulls.null_count() > 0).then_some(nulls)
    }

    fn buffers(&self) -> Vec<Buffer> {
        match self.column_type {
            ColumnType::Struct => vec![],
            ColumnType::List => vec![Buffer::from(self.offsets)],
            ColumnType::Utf8 => vec![Buffer::from(self.offsets), Buffer::from(self.values)],
            ColumnType::Boolean => {
                let bits: BooleanBuffer = self.values.iter().map(|value| *value != 0).collect();
                vec![bits.into_inner()]
            }
            _ => vec![Buffer::from(self.values)],
        }
    }

    fn array(&self) -> Result<ArrayData, ArrowError> {
        let children = self.children.iter().map(Column::array).collect::<Result<Vec<_>, _>>()?;
        ArrayDataBuilder::new(self.data_type())
            .len(self.length)
            .nulls(self.nulls())
            .buffers(self.buffers())
            .child_data(children)
            .build()
    }
}

enum Writer {
    File(FileWriter<Vec<u8>>),
    Stream(StreamWriter<Vec<u8>>),
}

pub struct ArrowTable {
    schema: Arc<Schema>,
    writer: Writer,
}

/// Whoever calls makes the columns, so what is wrong with one is no fault of a user's.
fn failure_of(error: ArrowError) -> Failure {
    Failure::new(FailureKind::Internal, error.to_string())
}

impl ArrowTable {
    /// A table of these columns, whose rows are not looked at.
    pub fn new(columns: &[Column], is_file: bool) -> Result<ArrowTable, Failure> {
        let fields: Vec<Field> = columns.iter().map(Column::field).collect();
        let schema = Arc::new(Schema::new(fields));
        let writer = match is_file {
            true => FileWriter::try_new(Vec::new(), &schema).map(Writer::File),
            false => StreamWriter::try_new(Vec::new(), &schema).map(Writer::Stream),
        };
        Ok(ArrowTable { schema, writer: writer.map_err(failure_of)? })
    }

    /// Adds rows; what came of them is in `take`.
    pub fn write(&mut self, columns: &[Column], num_rows: usize) -> Result<(), Failure> {
        let array =
            |column: &Column| -> Result<ArrayRef, ArrowError> { Ok(make_array(column.array()?)) };
        let arrays = columns.iter().map(array).collect::<Result<Vec<_>, _>>();
        let options = RecordBatchOptions::new().with_row_count(Some(num_rows));
        let batch = arrays.and_then(|arrays| {
            RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)
        });
        let batch = batch.map_err(failure_of)?;
        let written = match &mut self.writer {
            Writer::File(writer) => writer.write(&batch),
            Writer::Stream(writer) => writer.write(&batch),
        };
        written.map_err(failure_of)
    }

    /// Nothing can be added any more.
    pub fn finish(&mut self) -> Result<(), Failure> {
        let finished = match &mut self.writer {
            Writer::File(writer) => writer.finish(),
            Writer::Stream(writer) => writer.finish(),
        };
        finished.map_err(failure_of)
    }

    /// Bytes that were not taken yet.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(match &mut self.writer {
            Writer::File(writer) => writer.get_mut(),
            Writer::Stream(writer) => writer.get_mut(),
        })
    }
}
