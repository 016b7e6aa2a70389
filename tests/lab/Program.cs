using Sidecar.Lab;
using Sidecar.Lab.Demo;

try
{
    return args switch
    {
        ["demo"] => await Demonstration.RunAsync(),
        ["up"] => await LabByHand.RunAsync(),
        ["reap"] => LabByHand.Reap(),
        _ => LabByHand.Usage(),
    };
}
catch (Exception e) when (e is InvalidOperationException or CommandFailedException or FileNotFoundException or TimeoutException)
{
    Console.Error.WriteLine($"sidecar-lab: {e.Message}");
    return 1;
}
