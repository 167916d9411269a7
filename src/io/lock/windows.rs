//! On Windows.
