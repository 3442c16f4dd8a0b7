"""Families whose forward pass calls the network's children one after another: one row each.

A row lists the children in the order in which ``forward_features`` calls them. ``|`` is a boundary between blocks; ``name*``
stands for the children of ``name``, each a block, or grouped if they are many. Children after the last boundary form the
last block, together with the head. Children that a network lacks, or that are ``None``, are ignored.
"""

from __future__ import annotations

from typing import Final

STEM_AND_STAGES: Final = "stem | stages* |"
CHAINS: Final = {
    "ByobNet": "stem | stages* | final_conv",
    "ConvMixer": "stem | blocks* |",
    "ConvNeXt": "stem | stages* | norm_pre",
    "CPUBone": STEM_AND_STAGES,
    "CSATv2": "stem_dct | stages* |",
    "CspNet": STEM_AND_STAGES,
    "CspNext": STEM_AND_STAGES,
    "DaVit": "stem | stages* | norm_pre",
    "DenseNet": (
        "features.conv0 features.norm0 features.conv1 features.norm1 features.conv2 features.norm2 features.pool0 | "
        "features.denseblock1 features.transition1 | features.denseblock2 features.transition2 | "
        "features.denseblock3 features.transition3 | features.denseblock4 features.norm5 |"
    ),
    "DLA": "base_layer level0 level1 | level2 | level3 | level4 | level5 |",
    "DPN": "features* |",
    "EdgeNeXt": "stem | stages* | norm_pre",
    "EfficientFormer": "stem | stages* | norm",
    "EfficientFormerV2": "stem | stages* | norm",
    "EfficientNet": "conv_stem bn1 | blocks* | conv_head bn2",
    "EfficientVit": STEM_AND_STAGES,
    "EfficientVitLarge": STEM_AND_STAGES,
    "EfficientVitMsra": "patch_embed | stages* |",
    "FasterNet": "patch_embed | stages* |",
    "FastVit": "stem | stages* | final_conv",
    "FocalNet": "stem | layers* | norm",
    "GhostNet": "conv_stem bn1 act1 | blocks* |",
    "GlobalContextVit": STEM_AND_STAGES,
    "HighPerfGpuNet": STEM_AND_STAGES,
    "IFormer": STEM_AND_STAGES,
    "InceptionResnetV2": (
        "conv2d_1a conv2d_2a conv2d_2b maxpool_3a conv2d_3b conv2d_4a maxpool_5a | mixed_5b repeat | "
        "mixed_6a repeat_1 | mixed_7a repeat_2 block8 | conv2d_7b"
    ),
    "InceptionV3": (
        "Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3 Pool1 Conv2d_3b_1x1 Conv2d_4a_3x3 Pool2 | Mixed_5b Mixed_5c Mixed_5d | "
        "Mixed_6a Mixed_6b | Mixed_6c Mixed_6d | Mixed_6e | Mixed_7a | Mixed_7b | Mixed_7c |"
    ),
    "InceptionV4": "features* |",
    "LCNetV2": STEM_AND_STAGES,
    "LowFormer": STEM_AND_STAGES,
    "MambaOut": STEM_AND_STAGES,
    "MaxxVit": "stem | stages* | norm",
    "MetaFormer": STEM_AND_STAGES,
    "MetaNeXt": STEM_AND_STAGES,
    "MlpMixer": "stem | blocks* | norm",
    "MobileNetV3": "conv_stem bn1 | blocks* |",
    "NextViT": "stem | stages* | norm",
    "NormFreeNet": "stem | stages* | final_conv final_act",
    "PyramidVisionTransformerV2": "patch_embed | stages* |",
    "RDNet": "stem | dense_stages* | norm_pre",
    "RegNet": "stem | s1 | s2 | s3 | s4 | final_conv",
    "RepGhostNet": "conv_stem bn1 act1 | blocks* |",
    "RepVit": STEM_AND_STAGES,
    "ResNet": "conv1 bn1 act1 maxpool | layer1 | layer2 | layer3 | layer4 |",
    "ResNetV2": "stem | stages* | norm",
    "RexNet": "stem | features* |",
    "SENet": "layer0 pool0 | layer1 | layer2 | layer3 | layer4 |",
    "Sequencer2d": "stem | stages* | norm",
    "SHViT": "patch_embed | stages* |",
    "StarNet": "stem | stages* | norm",
    "SwiftFormer": "stem | stages* | norm",
    "SwinTransformer": "patch_embed | layers* | norm",
    "SwinTransformerV2": "patch_embed | layers* | norm",
    "SwinTransformerV2Cr": "patch_embed | stages* |",
    "TinyVit": "patch_embed | stages* |",
    "TResNet": "body* |",
    "VovNet": STEM_AND_STAGES,
    "Xception": (
        "conv1 bn1 act1 conv2 bn2 act2 | block1 block2 block3 | block4 block5 | block6 block7 | block8 block9 | "
        "block10 block11 | block12 | conv3 bn3 act3 conv4 bn4 act4 |"
    ),
    "XceptionAligned": "stem | blocks* | act",
}
