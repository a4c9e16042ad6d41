//! BPF arrays mapped into this process: the only `unsafe` code on the way to the maps.

use std::marker::PhantomData;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::{Map, MapData};
use bytemuck::Pod;
use memmap2::{MmapOptions, MmapRaw};

use super::Error;

/// A `BPF_MAP_TYPE_ARRAY` with `BPF_F_MMAPABLE`, of which this process is the only writer.
///
/// The XDP program reads the same memory at the same time. [`Mapped::write`] is for
/// elements that no reader looks at; [`Mapped::publish`] for single words that readers take
/// whole.
pub(super) struct Mapped<T> {
    memory: MmapRaw,
    len: u32,
    value: PhantomData<T>,
    /// Keeps the map alive.
    _map: MapData,
}

impl<T: Pod> Mapped<T> {
    /// Maps an array whose values are `T`.
    pub(super) fn new(name: &'static str, map: Map) -> Result<Self, Error> {
        const { assert!(size_of::<T>().is_multiple_of(8)) };
        let Map::Array(map) = map else {
            return Err(Error::Layout {
                map: name,
                what: "type",
            });
        };
        let info = map
            .info()
            .map_err(|source| Error::Map { map: name, source })?;
        if info.value_size() as usize != size_of::<T>() {
            return Err(Error::Layout {
                map: name,
                what: "value size",
            });
        }
        let len = info.max_entries();
        let memory = MmapOptions::new()
            .len(len as usize * size_of::<T>())
            .map_raw(map.fd().as_fd_raw())
            .map_err(|source| Error::Mmap { map: name, source })?;
        Ok(Self {
            memory,
            len,
            value: PhantomData,
            _map: map,
        })
    }

    /// How many elements there are.
    pub(super) const fn len(&self) -> u32 {
        self.len
    }

    fn element(&self, index: u32) -> *mut T {
        assert!(index < self.len, "index {index} of {}", self.len);
        // SAFETY: within the mapping, checked above.
        unsafe { self.memory.as_mut_ptr().cast::<T>().add(index as usize) }
    }

    /// Reads an element. Only this process writes elements, and never while it reads.
    pub(super) fn read(&self, index: u32) -> T {
        // SAFETY: a valid place, and any bytes are a `T` (`Pod`).
        unsafe { ptr::read_volatile(self.element(index)) }
    }

    /// Writes an element that no reader looks at.
    pub(super) fn write(&mut self, index: u32, value: &T) {
        // SAFETY: a valid place; `&mut self` excludes other writers, and by the rule of
        // `failover_common::layout` nobody reads it.
        unsafe { ptr::copy_nonoverlapping(value, self.element(index), 1) }
    }

    /// Stores one 64-bit word of an element, after everything that was written before.
    ///
    /// `offset` is in octets within the element and a multiple of 8.
    pub(super) fn publish(&mut self, index: u32, offset: usize, word: u64) {
        assert!(offset.is_multiple_of(8) && offset < size_of::<T>());
        // SAFETY: an aligned word inside a valid element: the mapping starts on a page and
        // the size of `T` is a multiple of 8. All accesses that may race are atomic or, in
        // the program, volatile loads of the whole word.
        let place =
            unsafe { AtomicU64::from_ptr(self.element(index).cast::<u8>().add(offset).cast()) };
        place.store(word, Ordering::Release);
    }

    /// Writes a part of an element that no reader looks at, `offset` octets within the element.
    pub(super) fn write_part<U: Pod>(&mut self, index: u32, offset: usize, part: &U) {
        assert!(
            offset.is_multiple_of(align_of::<U>()) && offset + size_of::<U>() <= size_of::<T>()
        );
        // SAFETY: a valid and aligned place inside a valid element, see `publish`; for the rest see
        // `write`.
        unsafe {
            let place = self.element(index).cast::<u8>().add(offset).cast();
            ptr::copy_nonoverlapping(part, place, 1);
        }
    }
}

/// The raw descriptor that `memmap2` asks for.
trait AsFdRaw {
    fn as_fd_raw(&self) -> std::os::fd::RawFd;
}

impl AsFdRaw for aya::maps::MapFd {
    fn as_fd_raw(&self) -> std::os::fd::RawFd {
        use std::os::fd::AsFd;
        self.as_fd().as_raw_fd()
    }
}
