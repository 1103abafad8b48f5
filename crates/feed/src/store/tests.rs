//! Tests of the store: order, what stays, what is set aside, and what is left after a kill at any moment.
