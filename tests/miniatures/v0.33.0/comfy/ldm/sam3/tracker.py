import comfy.model_management
import torch


class SAM31Tracker:
    def track_video_with_detection(self, frames, backbone, device):
        ahead = False
        backbone_stream = None
        if comfy.model_management.is_device_cuda(device):
            try:
                backbone_stream = torch.cuda.Stream(device=device)
                ahead = True
            except RuntimeError:
                pass
        features = backbone(frames[0])
        for frame in frames[1:]:
            if ahead:
                backbone_stream.wait_stream(torch.cuda.current_stream(device))
                with torch.cuda.stream(backbone_stream):
                    following = backbone(frame)
                torch.cuda.current_stream(device).wait_stream(backbone_stream)
            else:
                following = backbone(frame)
            yield features
            features = following
