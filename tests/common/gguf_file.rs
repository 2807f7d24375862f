//! Reads and writes GGUF files as parts that a test may exchange. Format: gguf.md of ggml, version 3.

use std::path::Path;

pub const ALIGNMENT: usize = 32; // of every file without the key general.alignment

/// A file's parts, in their order.
pub struct Gguf {
    /// Keys, and their values behind the type's id.
    pub metadata: Vec<(String, Vec<u8>)>,
    pub tensors: Vec<Tensor>,
}

pub struct Tensor {
    pub name: String,
    pub shape: Vec<u64>,
    pub type_id: u32,
    /// May end in padding.
    pub data: Vec<u8>,
}

impl Tensor {
    pub fn f32(name: String, shape: Vec<u64>, values: impl Iterator<Item = f32>) -> Self {
        let data: Vec<_> = values.flat_map(f32::to_le_bytes).collect();
        assert_eq!(data.len() as u64, 4 * shape.iter().product::<u64>(), "{name}");
        Self { name, shape, type_id: 0, data }
    }

    /// The values of an f32 tensor.
    pub fn values(&self) -> Vec<f32> {
        assert_eq!(self.type_id, 0, "{} is not f32", self.name);
        let n = self.shape.iter().product::<u64>() as usize;
        let value = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().expect("4 bytes"));
        self.data[..4 * n].chunks_exact(4).map(value).collect()
    }
}

impl Gguf {
    pub fn read(path: &Path) -> Self {
        let file = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut reader = Reader { file: &file, at: 0 };
        assert_eq!((reader.bytes(4), reader.u32()), (&b"GGUF"[..], 3));
        let (n_tensors, n_keys) = (reader.u64(), reader.u64());
        let metadata: Vec<_> = (0..n_keys)
            .map(|_| {
                let key = reader.string();
                let start = reader.at;
                let type_id = reader.u32();
                reader.skip_value(type_id);
                (key, file[start..reader.at].to_vec())
            })
            .collect();
        assert!(metadata.iter().all(|(key, _)| key != "general.alignment"));
        let infos: Vec<_> = (0..n_tensors)
            .map(|_| {
                let name = reader.string();
                let n_dims = reader.u32();
                let shape: Vec<_> = (0..n_dims).map(|_| reader.u64()).collect();
                (name, shape, reader.u32(), reader.u64() as usize)
            })
            .collect();
        let start = reader.at.next_multiple_of(ALIGNMENT);
        let ends = infos[1..].iter().map(|&(.., offset)| start + offset).chain([file.len()]);
        let tensors = infos.iter().zip(ends).map(|((name, shape, type_id, offset), end)| Tensor {
            name: name.clone(),
            shape: shape.clone(),
            type_id: *type_id,
            data: file[start + offset..end].to_vec(),
        });
        Self { metadata, tensors: tensors.collect() }
    }

    /// Gives a key this value, which may be new.
    pub fn set(&mut self, key: &str, value: Vec<u8>) {
        match self.metadata.iter_mut().find(|(k, _)| k == key) {
            Some(old) => old.1 = value,
            None => self.metadata.push((key.into(), value)),
        }
    }

    /// Makes a model one of another architecture with the same keys and tensors.
    pub fn set_arch(&mut self, old: &str, new: &str) {
        for (key, _) in &mut self.metadata {
            if let Some(rest) = key.strip_prefix(&format!("{old}.")) {
                *key = format!("{new}.{rest}");
            }
        }
        self.set("general.architecture", [&8u32.to_le_bytes()[..], &string(new)].concat());
    }

    pub fn tensor(&mut self, name: &str) -> &mut Tensor {
        let tensor = self.tensors.iter_mut().find(|tensor| tensor.name == name);
        tensor.unwrap_or_else(|| panic!("no {name}"))
    }

    pub fn write(&self, path: &Path) {
        let infos = self.tensors.iter().map(|tensor| Info {
            name: &tensor.name,
            shape: &tensor.shape,
            type_id: tensor.type_id,
            size: tensor.data.len() as u64,
        });
        let mut file = head(&self.metadata, infos);
        for tensor in &self.tensors {
            file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
            file.extend(&tensor.data);
        }
        file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
        std::fs::write(path, file).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
}

/// A tensor without its data.
pub struct Info<'a> {
    pub name: &'a str,
    pub shape: &'a [u64],
    pub type_id: u32,
    /// Bytes of its data.
    pub size: u64,
}

/// What comes before the tensors' data, but for the padding.
pub fn head<'a>(
    metadata: &[(String, Vec<u8>)],
    tensors: impl ExactSizeIterator<Item = Info<'a>>,
) -> Vec<u8> {
    let mut file = b"GGUF".to_vec();
    file.extend(3u32.to_le_bytes());
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        file.extend(string(key));
        file.extend(value);
    }
    let mut offset = 0u64;
    for tensor in tensors {
        file.extend(string(tensor.name));
        file.extend((tensor.shape.len() as u32).to_le_bytes());
        file.extend(tensor.shape.iter().flat_map(|n| n.to_le_bytes()));
        file.extend(tensor.type_id.to_le_bytes());
        file.extend(offset.to_le_bytes());
        offset += tensor.size.next_multiple_of(ALIGNMENT as u64);
    }
    file
}

pub fn string(s: &str) -> Vec<u8> {
    [&(s.len() as u64).to_le_bytes(), s.as_bytes()].concat()
}

struct Reader<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn bytes(&mut self, n: usize) -> &'a [u8] {
        self.at += n;
        &self.file[self.at - n..self.at]
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes(4).try_into().expect("4 bytes"))
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes(8).try_into().expect("8 bytes"))
    }

    fn string(&mut self) -> String {
        let n = self.u64() as usize;
        String::from_utf8(self.bytes(n).to_vec()).expect("a string in UTF-8")
    }

    fn skip_value(&mut self, type_id: u32) {
        let n = match type_id {
            0 | 1 | 7 => 1, // 8 bits, bool
            2 | 3 => 2,     // 16 bits
            4..=6 => 4,     // 32 bits, f32
            10..=12 => 8,   // 64 bits, f64
            8 => self.u64() as usize,
            9 => {
                let type_id = self.u32();
                for _ in 0..self.u64() {
                    self.skip_value(type_id);
                }
                0
            }
            _ => panic!("a value of type {type_id}"),
        };
        self.bytes(n);
    }
}
