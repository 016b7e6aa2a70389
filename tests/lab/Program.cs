using Sidecar.Lab;

return args switch
{
    ["up"] => await LabByHand.RunAsync(),
    ["reap"] => LabByHand.Reap(),
    _ => LabByHand.Usage(),
};
