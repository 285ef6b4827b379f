// The image of ImageJ as ImgLib2 sees it: its planes at this moment, and its axes in the order X, Y, C, Z, T.
package net.imglib2.img

import ij.ImagePlus

class ImagePlusAdapter {
    ImagePlus imp

    static ImagePlusAdapter wrapImgPlus(ImagePlus imp) {
        return new ImagePlusAdapter(imp: imp)
    }
}
