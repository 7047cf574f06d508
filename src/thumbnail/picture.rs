//! From a service's preview to the pictures of a thumbnail. Pure.
//!
//! Promise: a body is decoded only if it begins like a PNG, JPEG, WebP or GIF and its header claims
//! no more than [`MAX_PIXELS`]; what is larger is refused before a pixel is decoded. No picture is
//! made larger than it is.

use std::io::Cursor;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbaImage};

/// 3840 x 2160: nothing that a service calls a preview is larger.
pub const MAX_PIXELS: u64 = 3_840 * 2_160;
/// The longest side: 4 times 3840, for panoramas.
const MAX_SIDE_PX: u32 = 15_360;
/// 8 bytes a pixel: four channels of 16 bits. 66 MB, and no two are decoded at once.
const MAX_DECODED_BYTES: u64 = MAX_PIXELS * 8;

/// Why a body makes no picture.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    #[error("it is no PNG, JPEG, WebP or GIF")]
    Format,
    #[error("it claims {width_px} x {height_px} pixels")]
    TooLarge { width_px: u32, height_px: u32 },
    #[error("it can't be decoded: {0}")]
    Broken(String),
}

/// The picture, upright.
pub fn decode(body: &[u8]) -> Result<DynamicImage, PictureError> {
    let reader = ImageReader::new(Cursor::new(body)).with_guessed_format();
    let mut reader = reader.map_err(|error| PictureError::Broken(error.to_string()))?;
    let known = [
        ImageFormat::Png,
        ImageFormat::Jpeg,
        ImageFormat::WebP,
        ImageFormat::Gif,
    ];
    if !reader
        .format()
        .is_some_and(|format| known.contains(&format))
    {
        return Err(PictureError::Format);
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE_PX);
    limits.max_image_height = Some(MAX_SIDE_PX);
    limits.max_alloc = Some(MAX_DECODED_BYTES);
    reader.limits(limits);
    let broken = |error: image::ImageError| PictureError::Broken(error.to_string());
    let mut decoder = reader.into_decoder().map_err(broken)?;
    let (width_px, height_px) = decoder.dimensions();
    if u64::from(width_px) * u64::from(height_px) > MAX_PIXELS {
        return Err(PictureError::TooLarge {
            width_px,
            height_px,
        });
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder).map_err(broken)?;
    picture.apply_orientation(orientation);
    Ok(picture)
}

/// The picture within a square of `side_px`.
pub fn fit(picture: &DynamicImage, side_px: u32) -> RgbaImage {
    if picture.width() <= side_px && picture.height() <= side_px {
        return picture.to_rgba8();
    }
    picture.thumbnail(side_px, side_px).to_rgba8()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png(width_px: u32, height_px: u32) -> Vec<u8> {
        let mut body = Cursor::new(Vec::new());
        let picture = RgbaImage::from_pixel(width_px, height_px, image::Rgba([9, 8, 7, 255]));
        picture.write_to(&mut body, ImageFormat::Png).unwrap();
        body.into_inner()
    }

    /// A PNG of one pixel whose header claims to be larger, its checksum right.
    fn bomb(width_px: u32, height_px: u32) -> Vec<u8> {
        let mut body = Vec::new();
        let mut encoder = ::png::Encoder::new(&mut body, width_px, height_px);
        encoder.set_color(::png::ColorType::Grayscale);
        let mut writer = encoder.write_header().unwrap();
        writer
            .write_chunk(::png::chunk::IDAT, &[0x78, 0x9c, 0x63, 0, 0, 0, 1, 0, 1])
            .unwrap();
        drop(writer);
        body
    }

    #[test]
    fn a_picture_is_made_to_fit_and_never_larger() {
        let picture = decode(&png(640, 360)).unwrap();
        assert_eq!(fit(&picture, 128).dimensions(), (128, 72));
        assert_eq!(fit(&picture, 256).dimensions(), (256, 144));
        assert_eq!(fit(&picture, 256).get_pixel(3, 3).0, [9, 8, 7, 255]);
        let small = decode(&png(96, 54)).unwrap();
        assert_eq!(fit(&small, 128).dimensions(), (96, 54));
        let tall = decode(&png(10, 2_000)).unwrap();
        assert_eq!(fit(&tall, 128).dimensions(), (1, 128));
    }

    #[test]
    fn a_bomb_is_refused_by_its_header() {
        for (width_px, height_px) in [(60_000, 60_000), (15_000, 15_000), (u32::MAX >> 1, 1)] {
            let error = decode(&bomb(width_px, height_px)).unwrap_err();
            let said = error.to_string();
            assert!(
                matches!(error, PictureError::TooLarge { .. }) || said.contains("limit"),
                "{said}"
            );
        }
    }

    #[test]
    fn what_is_no_picture_is_refused_without_being_decoded() {
        let svg = b"<svg xmlns='http://www.w3.org/2000/svg'/>".as_slice();
        for body in [
            b"".as_slice(),
            b"<html><title>x</title>",
            svg,
            b"BM\0\0\0\0",
            b"%PDF-1.4",
        ] {
            assert!(
                matches!(decode(body), Err(PictureError::Format)),
                "{body:?}"
            );
        }
        let whole = png(64, 64);
        let cut = decode(&whole[..whole.len() / 2]);
        assert!(matches!(cut, Err(PictureError::Broken(_))));
    }
}
