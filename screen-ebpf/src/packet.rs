//! The bytes of a packet, as each kind of program gets at them.

use core::{arch::asm, mem::MaybeUninit};

use aya_ebpf::{
    EbpfContext,
    helpers::bpf_skb_load_bytes,
    programs::{TcContext, XdpContext},
};
use screen_common::packet::Frame;

/// The context of a program that is asked about a packet.
pub(crate) trait PacketContext: EbpfContext {
    /// The packet, from its Ethernet header on.
    fn frame(&self) -> impl Frame;
}

impl PacketContext for XdpContext {
    #[inline(always)]
    fn frame(&self) -> impl Frame {
        Linear { data: self.data(), end: self.data_end() }
    }
}

impl PacketContext for TcContext {
    #[inline(always)]
    fn frame(&self) -> impl Frame {
        Socket { linear: Linear { data: self.data(), end: self.data_end() }, ctx: self }
    }
}

/// Bytes that lie in one piece, where the program may read them itself.
struct Linear {
    data: usize,
    end: usize,
}

impl Frame for Linear {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let mut start = self.data;
        // The compiler would leave out a check that an earlier one implies, but the verifier wants one for each pointer: an addition
        // in assembly hides from it where this one came from.
        // SAFETY: two numbers are added.
        unsafe {
            asm!("{start} += {offset}", start = inout(reg) start, offset = in(reg) offset, options(pure, nomem, nostack));
        }
        if start + N > self.end {
            return None;
        }
        // SAFETY: within the packet, as just checked in the way that the verifier follows.
        Some(unsafe { (start as *const [u8; N]).read_unaligned() })
    }

    #[inline(always)]
    fn length(&self) -> usize {
        let mut length = self.end;
        // The compiler would draw this difference together with other numbers, and the verifier allows nothing else to be taken from a
        // packet pointer than the other one.
        // SAFETY: a difference of two numbers.
        unsafe {
            asm!("{length} -= {data}", length = inout(reg) length, data = in(reg) self.data, options(pure, nomem, nostack));
        }
        length
    }
}

/// A socket buffer. A driver may leave as little as the Ethernet header in its linear part, the rest in pages: that part is read
/// through the kernel. An outer VLAN tag is not among the bytes; as the gate judges every VLAN alike, it isn't missed.
struct Socket<'a> {
    linear: Linear,
    ctx: &'a TcContext,
}

impl Frame for Socket<'_> {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if let Some(bytes) = self.linear.read(offset) {
            return Some(bytes);
        }
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: the helper writes all `N` bytes, or zeroes where the packet does not reach that far, and says so.
        unsafe {
            let result = bpf_skb_load_bytes(self.ctx.as_ptr(), offset as u32, bytes.as_mut_ptr().cast(), N as u32);
            if result == 0 { Some(bytes.assume_init()) } else { None }
        }
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.ctx.len() as usize
    }
}
