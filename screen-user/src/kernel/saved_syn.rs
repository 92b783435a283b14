//! The SYN that opened a connection, as the stack keeps it for a listener that asks for it (tcp(7) does not name the options; Linux
//! has them since 4.2). Works without the programs and without privileges.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _},
};

/// Headers of a usual SYN: at most 60 bytes each of IP and TCP, with room for an IPv6 extension header or two.
const USUAL: usize = 256;

/// Has the stack keep the SYN of every connection that comes in by `listener`: its headers from IP on, no payload. To be set before
/// the socket listens, or the first clients have none.
///
/// # Errors
///
/// The kernel does not know the option.
pub fn save_syn(listener: impl AsFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option reads an int, which `on` is, for the length of the call.
    let result = unsafe {
        libc::setsockopt(
            listener.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_SAVE_SYN,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes the SYN's headers out of an accepted connection and hands them to `read`; the kernel's copy is freed, so that a second call
/// finds none. Nothing is kept where the connection was made by a SYN cookie, or the listener did not ask.
///
/// Whoever accepts calls it for every connection: what is not taken stays in kernel memory as long as the connection, and a SYN put
/// together from fragments may be 64 KiB long.
pub fn take_saved_syn<T>(connection: impl AsFd, read: impl FnOnce(&[u8]) -> T) -> Option<T> {
    let mut usual = [0; USUAL];
    match get(&connection, &mut usual) {
        Ok(0) | Err(None) => None,
        Ok(length) => usual.get(..length).map(read),
        Err(Some(needed)) => {
            let mut all = vec![0; needed];
            let length = get(&connection, &mut all).ok()?;
            all.get(..length).map(read)
        }
    }
}

/// How many bytes were written to `buffer`; zero if there is no SYN. The error is the room that it would take, and the kernel keeps
/// the SYN; or nothing, if the socket can't be asked.
fn get(connection: &impl AsFd, buffer: &mut [u8]) -> Result<usize, Option<usize>> {
    let room = buffer.len();
    let mut length = room as libc::socklen_t;
    // SAFETY: the option writes at most `length` bytes to the buffer, which has that many, and the length to `length`.
    let result = unsafe {
        libc::getsockopt(
            connection.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_SAVED_SYN,
            buffer.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    match (result, length as usize) {
        (0, length) => Ok(length),
        (_, needed) if needed > room => Err(Some(needed)),
        _ => Err(None),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn connection(address: &str, save: bool) -> (TcpStream, TcpStream) {
        // The standard library's listener listens already; what comes after this line is kept all the same.
        let listener = TcpListener::bind(address).unwrap();
        if save {
            save_syn(&listener).unwrap();
        }
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[test]
    fn a_syn_is_there_once() {
        for (address, version) in [("127.0.0.1:0", 4), ("[::1]:0", 6)] {
            let (_client, accepted) = connection(address, true);
            let headers = take_saved_syn(&accepted, <[u8]>::to_vec).unwrap();
            assert_eq!(headers[0] >> 4, version);
            assert_eq!(take_saved_syn(&accepted, <[u8]>::len), None, "the kernel has freed it");
        }
    }

    #[test]
    fn what_is_longer_than_usual_is_told_and_kept() {
        let (_client, accepted) = connection("127.0.0.1:0", true);
        let needed = get(&accepted, &mut [0; 8]).unwrap_err().unwrap();
        assert_eq!(take_saved_syn(&accepted, <[u8]>::len), Some(needed));
    }

    #[test]
    fn who_did_not_ask_has_none() {
        let (_client, accepted) = connection("127.0.0.1:0", false);
        assert_eq!(take_saved_syn(&accepted, <[u8]>::len), None);
    }
}
