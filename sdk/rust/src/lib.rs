//! Write a Parley moderation plugin in Rust. ABI version 1, specified in
//! `docs/plugin-abi.md`; `README.md` beside this crate is the reference. The
//! crate has no dependencies, needs no allocator and imports nothing from the
//! host.
//!
//! ```ignore
//! #![no_std]
//! use parley::{Judge, Message, Reply};
//!
//! struct Tags;
//!
//! impl Judge for Tags {
//!     fn decide<'a>(&'a mut self, message: &Message<'a>) -> Reply<'a> {
//!         if message.text.contains(&b'#') {
//!             return Reply::deny(1, "No hash tags in this room, please.");
//!         }
//!         Reply::allow()
//!     }
//! }
//!
//! parley::plugin!(Tags = Tags);
//! ```
//!
//! The host puts memory back after each decision, so what `decide` stores is
//! gone by the next message; what `configure` stores stays.

#![cfg_attr(not(test), no_std)]
#![warn(missing_docs)]

mod config;
mod guest;
mod message;
mod reply;
mod spans;

pub use config::Config;
pub use guest::Guest;
pub use message::{Message, Signals};
pub use reply::{Reply, Verdict};
pub use spans::{Field, Span, Spans};

/// The ABI version this crate speaks.
pub const VERSION: u32 = 1;
/// The default of the manifest's `limits.input_bytes`.
pub const MAX_INPUT: usize = 16 * 1024;
/// Bytes of a reason; the rest is cut off between characters.
pub const MAX_REASON: usize = 256;
/// Spans of one verdict.
pub const MAX_SPANS: usize = 256;
/// The score of who is certain.
pub const MAX_SCORE: u16 = 1000;

/// A plugin: it looks at one message and gives a verdict.
pub trait Judge {
    /// Takes the `config` of the manifest, once, before the first decision; it
    /// is not called where the manifest has none. What is left unread, or
    /// refused, refuses the plugin. A judge without this takes no
    /// configuration.
    fn configure(&mut self, config: &mut Config<'_>) {
        config.refuse();
    }

    /// Judges one message. The reply may borrow from the judge and from the
    /// message.
    fn decide<'a>(&'a mut self, message: &Message<'a>) -> Reply<'a>;
}

/// Makes a judge the module's plugin: `plugin!(Type = value)`, where the value
/// is a constant expression. The room for one input, and for the
/// configuration, is [`MAX_INPUT`]; for more, `plugin!(Type = value, input:
/// 65536)`.
#[macro_export]
macro_rules! plugin {
    ($judge:ty = $new:expr) => {
        $crate::plugin!($judge = $new, input: $crate::MAX_INPUT);
    };
    ($judge:ty = $new:expr, input: $input:expr) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            static mut GUEST: $crate::Guest<$judge, { $input }> = $crate::Guest::new($new);

            // A module runs on one thread and none of these calls another, so
            // the reference is the only one.
            fn guest() -> &'static mut $crate::Guest<$judge, { $input }> {
                unsafe { &mut *core::ptr::addr_of_mut!(GUEST) }
            }

            #[no_mangle]
            extern "C" fn abi_version() -> u32 {
                $crate::VERSION
            }

            #[no_mangle]
            extern "C" fn input_buffer(capacity: u32) -> u32 {
                guest().input_buffer(capacity)
            }

            #[no_mangle]
            extern "C" fn configure(ptr: u32, len: u32) -> u32 {
                guest().configure(ptr, len)
            }

            #[no_mangle]
            extern "C" fn decide(ptr: u32, len: u32) -> u64 {
                guest().decide(ptr, len)
            }
        };
    };
}

/// A panic ends the decision and nothing else. Its text is dropped: there is
/// nobody to print it for, and it would make up most of the module.
#[cfg(all(target_arch = "wasm32", not(test)))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    core::arch::wasm32::unreachable()
}
