//! The C interface of tables, as lib.rs is that of everything else.

use crate::arrow_table::{ArrowTable, Column, ColumnType};
use crate::{array, border, Failure, VsBytes, VsString};

#[repr(C)]
pub struct VsColumn {
    name: VsBytes,
    column_type: i32,
    nullable: bool,
    length: usize,
    valid: VsBytes,
    offsets: VsBytes,
    values: VsBytes,
    children: *const VsColumn,
    num_children: usize,
}

pub struct VsArrowTable(ArrowTable);

/// SAFETY: `columns` holds `count` columns whose bytes and children are valid.
unsafe fn columns_of<'a>(
    columns: *const VsColumn,
    count: usize,
) -> Result<Vec<Column<'a>>, Failure> {
    let columns = array(columns, count).iter().map(|column| {
        Ok(Column {
            name: column.name.text()?,
            column_type: ColumnType::of_number(column.column_type)?,
            nullable: column.nullable,
            length: column.length,
            valid: column.valid.slice(),
            offsets: column.offsets.slice(),
            values: column.values.slice(),
            children: columns_of(column.children, column.num_children)?,
        })
    });
    columns.collect()
}

#[no_mangle]
pub unsafe extern "C" fn vs_arrow_table_new(
    columns: *const VsColumn,
    num_columns: usize,
    is_file: bool,
    result: *mut *mut VsArrowTable,
    error: *mut VsString,
) -> i32 {
    border(error, || {
        let table = ArrowTable::new(&columns_of(columns, num_columns)?, is_file)?;
        result.write(Box::into_raw(Box::new(VsArrowTable(table))));
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn vs_arrow_table_free(table: *mut VsArrowTable) {
    drop(Box::from_raw(table));
}

#[no_mangle]
pub unsafe extern "C" fn vs_arrow_table_write(
    table: *mut VsArrowTable,
    columns: *const VsColumn,
    num_columns: usize,
    num_rows: usize,
    bytes: *mut VsString,
    error: *mut VsString,
) -> i32 {
    border(error, || {
        let table = &mut (*table).0;
        table.write(&columns_of(columns, num_columns)?, num_rows)?;
        bytes.write(table.take().into());
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn vs_arrow_table_finish(
    table: *mut VsArrowTable,
    bytes: *mut VsString,
    error: *mut VsString,
) -> i32 {
    border(error, || {
        let table = &mut (*table).0;
        table.finish()?;
        bytes.write(table.take().into());
        Ok(())
    })
}
